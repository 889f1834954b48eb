async def run():
    raise KeyError("k")
