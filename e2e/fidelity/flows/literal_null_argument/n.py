from promptflow.core import tool


@tool
def n(a: int, b: int):
    return a + b
