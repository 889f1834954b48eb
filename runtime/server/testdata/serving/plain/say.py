from promptflow.core import tool
from promptflow.exceptions import SystemErrorException, UserErrorException


@tool
def say(text: str, count: int, loud: bool):
    if text == "fail":
        raise ValueError("cannot say that")
    if text == "user":
        raise UserErrorException("not like that")
    if text == "system":
        raise SystemErrorException("out of order")
    if text == "unserializable":
        return {1, 2}
    return (text.upper() if loud else text) * count
