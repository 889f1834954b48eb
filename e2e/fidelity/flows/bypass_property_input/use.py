from promptflow.core import tool


@tool
def use(b, a="default"):
    return [a, b]
