from promptflow.core import tool


@tool
def sync(n: int):
    return 10 // n
