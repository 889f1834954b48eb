from promptflow.core import tool


@tool
def join(b, c, a="default a"):
    return [a, b, c]
