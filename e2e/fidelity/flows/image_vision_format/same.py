from promptflow.contracts.multimedia import Image
from promptflow.core import tool


@tool
def same(image: Image) -> Image:
    return image
