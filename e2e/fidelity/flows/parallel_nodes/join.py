from promptflow.core import tool


@tool
def join(a, b, c):
    return [a, b, c]
