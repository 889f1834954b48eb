from promptflow.core import tool


@tool
def before():
    return "done before"
