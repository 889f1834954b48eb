from promptflow._core.tool import tool


@tool
def old(x: int):
    return x
