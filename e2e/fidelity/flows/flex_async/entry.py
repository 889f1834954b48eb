import asyncio


async def run(n: int):
    await asyncio.sleep(0)
    return {"n": 6 // n}
