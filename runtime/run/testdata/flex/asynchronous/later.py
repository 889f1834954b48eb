import asyncio


class Later:
    def __init__(self, wait: float = 0.0):
        self.wait = wait

    async def __call__(self, text: str):
        await asyncio.sleep(self.wait)
        print("awake")
        if text == "fail":
            raise ValueError("no " + text)
        return text + "!"

    async def __aggregate__(self, outputs: list):
        await asyncio.sleep(0)
        return {"count": len(outputs), "joined": "".join(outputs)}
