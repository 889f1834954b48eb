from promptflow.core import tool


@tool
def echo(text: str):
    return text
