from promptflow import tool


@tool
def umbrella(x: int):
    return x
