from promptflow.contracts.multimedia import Image
from promptflow.core import tool


@tool
def make(picture: Image, gallery: list):
    return {"picture": Image(bytes(picture)[:3], "image/x"), "gallery": [picture, *gallery]}
