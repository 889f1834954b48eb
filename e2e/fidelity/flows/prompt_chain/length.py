from promptflow.core import tool


@tool
def length(text: str):
    return f"{len(text)} {text[:12]!r}"
