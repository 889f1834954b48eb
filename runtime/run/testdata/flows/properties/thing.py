from dataclasses import dataclass, field

from promptflow.core import tool


class Thing(dict):
    def __init__(self):
        super().__init__(name="box", tags=["x", "y"])


@tool
def thing():
    return Thing()
