from promptflow.core import tool


@tool
def first(a: int):
    print("a is", a)
    return {"x": a + 1}
