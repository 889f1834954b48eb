from promptflow.core import tool


@tool
def n(a: list):
    return a
