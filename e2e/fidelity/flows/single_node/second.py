from promptflow.core import tool


@tool
def second(a: int, x: int):
    return a * x
