from promptflow.core import tool


@tool
async def asynchronous(n: int, fail: int):
    for i in range(n):
        if i == fail:
            raise ValueError(f"at {i}")
        yield f"<{i}>"
