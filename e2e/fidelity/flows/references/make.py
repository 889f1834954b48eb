from promptflow.core import tool


class Thing:
    field = "an attribute"
    pair = (1, 2)


@tool
def make():
    return {"word": "w", "deep": {"list": [0, {"x": "deep"}]}, "a.b c": "quoted", "list": ["first"], "minus": {"1": "one"}, "da": {"sh": "dashed"}, "object": Thing(), "größe": 3}
