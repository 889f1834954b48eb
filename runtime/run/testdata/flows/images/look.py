from promptflow.contracts.multimedia import Image
from promptflow.core import tool


def show(value):
    if isinstance(value, Image):
        return [type(value).__name__, str(value), value._mime_type, len(value), value.source_url]
    if isinstance(value, list):
        return [show(v) for v in value]
    if isinstance(value, dict):
        return {k: show(v) for k, v in value.items()}
    return value


@tool
def look(nested: dict, item: dict, text: str):
    print(item)
    return {"nested": show(nested), "item": show(item), "text": text}
