from promptflow.core import tool


@tool
def typed(i: int):
    return i
