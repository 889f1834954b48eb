from promptflow.core import tool


@tool
def join(**values):
    return values
