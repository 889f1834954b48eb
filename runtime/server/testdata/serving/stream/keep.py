from promptflow.core import tool


@tool
def keep(n: int):
    return {"a": [n, None, 1.5, "é"]}
