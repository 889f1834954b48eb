from promptflow.core import tool


@tool
def two(n: int):
    return {"words": (f"<{i}>" for i in range(n)), "rest": 1}
