from promptflow.core import tool


class Thing:
    pass


@tool
def thing(value: str):
    return Thing()
