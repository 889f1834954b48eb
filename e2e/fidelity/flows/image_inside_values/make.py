from pathlib import Path

from promptflow.contracts.multimedia import Image
from promptflow.core import tool


@tool
def make():
    image = Image(Path("red.png").read_bytes(), "image/png")
    return {"images": [image, image], "text": "made"}
