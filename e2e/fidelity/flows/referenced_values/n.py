from promptflow.core import tool


@tool
def n(i: int, s: str, given: str, other: int, empty: str = "default"):
    return [repr(v) for v in (i, s, given, other, empty)]
