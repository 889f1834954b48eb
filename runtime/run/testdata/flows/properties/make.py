from promptflow.core import tool


@tool
def make():
    return {"plain": {"a.b c": [1, "second"], "text": "t"}, "item": {"name": "n"}}
