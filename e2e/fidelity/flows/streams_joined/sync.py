from promptflow.core import tool


@tool
def sync(n: int, fail: int = -1):
    for i in range(n):
        if i == fail:
            raise ValueError(f"at {i}")
        yield i
