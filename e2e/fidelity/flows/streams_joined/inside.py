from promptflow.core import tool


@tool
def inside(n: int):
    return {"stream": (str(i) for i in range(n))}
