import asyncio

from promptflow.core import tool


@tool
async def plain(n: int, words):
    await asyncio.sleep(0)
    if n == 2:
        raise KeyError("two")
    return f"n={n}"
