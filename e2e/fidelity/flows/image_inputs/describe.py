from promptflow.contracts.multimedia import Image
from promptflow.core import tool


@tool
def describe(image: Image):
    return {"text": str(image), "bytes": len(image), "mime": image._mime_type, "type": type(image).__name__, "source": str(image.source_url)}
