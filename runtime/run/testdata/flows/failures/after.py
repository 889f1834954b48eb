from promptflow.core import tool


@tool
def after(value):
    return str(type(value))
