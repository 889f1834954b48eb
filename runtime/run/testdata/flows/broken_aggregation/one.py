from promptflow.core import tool


@tool
def one(a: int):
    return a + 1
