import sys

from promptflow.core import tool
from promptflow.exceptions import UserErrorException, ValidationException


class Odd(Exception):
    def __str__(self):
        return "odd\nindeed"


class Own(ValidationException):
    pass


class Thing:
    def __repr__(self):
        return "<thing>"


@tool
def fail(how: str):
    print("out", how)
    print("err", how, file=sys.stderr)
    sys.stdout.write("no line end")
    if how == "bare":
        raise Odd
    if how == "chained":
        try:
            [][1]
        except IndexError as e:
            raise RuntimeError("outer") from e
    if how == "unicode":
        raise ValueError("größer 日本 \x00")
    if how == "exit":
        raise SystemError("not a real exit")
    if how == "interrupt":
        raise StopIteration("stop")
    if how == "group":
        raise ExceptionGroup("several", [ValueError(1), TypeError(2)])
    if how == "promptflow":
        raise Own(message="own message", target="Tool")
    if how == "object":
        return Thing()
    if how == "nested":
        return {"a": [Thing(), {1: 2, None: 3}], "t": (1, 2)}
    if how == "bytes":
        return b"x\xff"
    if how == "surrogate":
        return "a\ud800b"
    if how == "huge":
        return 2 ** 80
    if how == "recursive":
        value = []
        value.append(value)
        return value
    return how
