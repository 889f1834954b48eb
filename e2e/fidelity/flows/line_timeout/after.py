from promptflow.core import tool


@tool
def after(waited: int):
    return f"waited {waited}"
