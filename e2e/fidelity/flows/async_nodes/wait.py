import asyncio

from promptflow.core import tool


@tool
async def wait(n: int, name: str):
    await asyncio.sleep(0.001 * n)
    print(name)
    return f"{name}{n}"
