from promptflow.core import tool


@tool
def check(n: int):
    return {"even": n % 2 == 0, "odd text": f"odd {n}"}
