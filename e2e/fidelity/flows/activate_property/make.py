from promptflow.core import tool


@tool
def make(n: int):
    return {"odd": n % 2 == 1, "three": n == 3} if n != 2 else {"odd": False, "three": 0}
