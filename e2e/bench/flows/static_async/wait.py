import asyncio

from promptflow.core import tool


@tool
async def wait(question: str, history: list) -> str:
    await asyncio.sleep(0.25)
    return "waited"
