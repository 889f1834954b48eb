import datetime
from dataclasses import dataclass

from promptflow.core import tool


@dataclass
class Point:
    x: int
    y: list


@tool
def make(how: str):
    return {
        "text": "t", "object": Exception("e"), "set": {1}, "keys": {1: "a", True: "b", None: "c", 1.5: "d"}, "date": datetime.date(2024, 1, 2), "tuple": (1, (2, 3)),
        "nan": [float("nan"), float("inf"), -0.0], "dataclass": Point(1, [2]), "bytes": b"x", "deep": {"a": [{"b": object}]},
    }[how]
