from promptflow.core import tool


@tool
async def join(**values):
    return list(values.values())
