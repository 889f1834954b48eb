from promptflow.core import tool


@tool
def n(a: bool):
    return a
