import asyncio


async def words(text: str):
    for word in text.split():
        await asyncio.sleep(0)
        yield word + " "
