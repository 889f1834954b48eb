from enum import Enum

from promptflow.core import tool


class Way(str, Enum):
    UP = "up"
    DOWN = "down"


@tool
def add(n: int, way: Way = Way.UP, more: int = 1):
    """Adds.

    :param n: what to add to
    :type n: int
    """
    return n + more if way == "up" else n - more
