import asyncio

from promptflow.core import tool


@tool
async def wait(seconds: int):
    await asyncio.sleep(seconds)
    return seconds
