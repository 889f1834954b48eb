import sys

from promptflow.core import tool


class Odd(Exception):
    pass


@tool
def fail(how: str):
    print(f"out {how}")
    print(f"err {how}", file=sys.stderr)
    if how == "object":
        return {"value": object}
    if how == "set":
        return {"value": 1, "more": {1, 2}}
    if how == "none":
        return None
    if how == "list":
        return [1]
    if how == "chained":
        try:
            {}["missing"]
        except KeyError as e:
            raise Odd("outer\nline") from e
    if how == "bare":
        raise Odd
    return {"value": how}
