from promptflow.core import tool


@tool
def make():
    return {"a": 1}
