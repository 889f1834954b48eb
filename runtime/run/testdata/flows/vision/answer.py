from promptflow.contracts.multimedia import Image, Text
from promptflow.core import tool


def show(value):
    if isinstance(value, Image):
        return ["Image", str(value), value._mime_type]
    if isinstance(value, Text):
        return ["Text", str(value), value._annotations]
    if isinstance(value, list):
        return [show(v) for v in value]
    if isinstance(value, dict):
        return {k: show(v) for k, v in value.items()}
    return value


@tool
def answer(question: list, chat_history: list, picture: Image, text: str):
    first = question[0] if question else None
    return {"seen": show(question), "history": show(chat_history), "text": text, "first": first, "picture": picture, "note": Text("hi", ["n"])}
