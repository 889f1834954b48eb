from promptflow.connections import OpenAIConnection
from promptflow.core import tool


@tool
def n(c: OpenAIConnection):
    return type(c).__name__
