from promptflow.core import tool


@tool
def show(s, l, o):
    return repr([s, l, o])
