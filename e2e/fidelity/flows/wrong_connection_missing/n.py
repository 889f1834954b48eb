from promptflow.connections import CustomConnection
from promptflow.core import tool


@tool
def n(c: CustomConnection):
    return type(c).__name__
