from promptflow.core import tool


@tool
def first(text: str):
    return text + "+"
