from promptflow.contracts.multimedia import Image
from promptflow.core import tool


@tool
def collect(list: list, object: dict, literal: Image):
    return [str(v) if isinstance(v, Image) else v for v in list] + [object, type(object).__name__, literal]
