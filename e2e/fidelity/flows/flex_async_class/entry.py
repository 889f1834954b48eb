class Flow:
    async def __call__(self, n: int):
        return {"n": n}

    async def __aggregate__(self, lines):
        return {"sum": sum(line["n"] for line in lines)}
