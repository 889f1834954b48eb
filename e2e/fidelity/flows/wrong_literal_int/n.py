from promptflow.core import tool


@tool
def n(a: int):
    return a
