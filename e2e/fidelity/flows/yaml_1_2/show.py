from promptflow.core import tool


@tool
def show(**values):
    return {k: repr(v) for k, v in values.items()}
