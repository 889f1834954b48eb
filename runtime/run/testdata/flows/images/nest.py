from promptflow.contracts.multimedia import Image
from promptflow.core import tool


@tool
def nest(picture: Image, gallery: list, thing: dict, fixed: Image):
    return {"list": [fixed, {"p": picture}], "gallery": gallery, "thing": thing, "plain": 1.5}
