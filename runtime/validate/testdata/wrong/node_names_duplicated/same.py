from promptflow.core import tool


@tool
def same(value: str = "") -> str:
    return value
