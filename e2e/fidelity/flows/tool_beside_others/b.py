from promptflow.core import tool


@tool
def b(text: str):
    return text + "!"
