from promptflow.core import tool


@tool
def say(text: str):
    return f"{text}!"
