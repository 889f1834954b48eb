from dataclasses import dataclass

from promptflow.core import tool


@dataclass
class Pair:
    left: int
    right: int


@tool
def make(n: int):
    return [n, {"left": n, "right": n + 1}]
