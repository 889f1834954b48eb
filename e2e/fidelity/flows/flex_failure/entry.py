from promptflow.exceptions import UserErrorException


class Odd(Exception):
    pass


def run(how: str):
    if how == "plain":
        raise Odd("odd")
    if how == "promptflow":
        raise UserErrorException("the user's")
    return None
