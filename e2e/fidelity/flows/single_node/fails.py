from promptflow.core import tool


@tool
def fails(v):
    raise ValueError(v)
