from promptflow.core import tool


@tool
def n(a: float):
    return a
