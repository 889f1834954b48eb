from promptflow.core import tool


class Thing:
    name = "thing"

    def __str__(self):
        return "a thing"


@tool
def make():
    return Thing()
