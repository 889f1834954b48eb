import asyncio

from promptflow.core import tool


@tool
async def words(n: int):
    for i in range(n):
        await asyncio.sleep(0)
        yield f"{i} "
