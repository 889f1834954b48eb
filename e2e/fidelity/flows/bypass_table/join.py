from promptflow.core import tool


@tool
def join(a, b="default b", c=None, d="default d"):
    return [a, b, c, d]
