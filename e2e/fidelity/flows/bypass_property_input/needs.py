from promptflow.core import tool


@tool
def needs(a, b):
    return [a, b]
