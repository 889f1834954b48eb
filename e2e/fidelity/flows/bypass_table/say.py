from promptflow.core import tool


@tool
def say(text: str = "default", fallback: str = ""):
    return f"{text}{fallback}"
