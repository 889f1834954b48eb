from promptflow.core import tool


@tool
def show(i, d, b):
    return repr([i, d, b])
