from promptflow.core import tool


@tool
def eat(stream):
    return ",".join(str(s) for s in stream)
