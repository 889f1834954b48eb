from promptflow.core import tool


@tool
def pair():
    return (1, 2)
