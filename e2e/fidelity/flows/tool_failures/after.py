from promptflow.core import tool


@tool
def after(value):
    return type(value).__name__
