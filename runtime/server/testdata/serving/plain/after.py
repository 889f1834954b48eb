from promptflow.core import tool


@tool
def after(said: list):
    raise RuntimeError("serving runs no aggregation")
