from b import b
from promptflow.core import tool


@tool
def a():
    return b("called")
