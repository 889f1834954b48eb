from promptflow.core import tool


@tool
def literal(i: int, d: float, b: bool, s: str, l: list, o: object, whole, n="default n", e="default e"):
    return repr([i, d, b, s, l, o, whole, n, e])
