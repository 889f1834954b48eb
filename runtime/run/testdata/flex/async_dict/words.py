import asyncio


async def words(text: str):
    async def later():
        for word in text.split():
            await asyncio.sleep(0)
            yield word

    return {"later": later(), "now": (w.upper() for w in text.split()), "n": len(text)}
