from promptflow.core import tool


@tool
def one(n: int):
    for i in range(n):
        yield str(i)
