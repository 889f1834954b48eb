from promptflow.core import tool


@tool
def make(which: str):
    return {"key": {"b": 1}, "none": {"a": None}, "fine": {"a": {"x": 1}}}[which]
