from promptflow.core import tool


@tool
def make():
    return {"list": [1, 2.0], "text": "t", "none": None}
