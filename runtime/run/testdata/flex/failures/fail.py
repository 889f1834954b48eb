import sys


class Odd:
    pass


def fail(how: str):
    print("failing", how)
    if how == "chained":
        try:
            {}["key"]
        except KeyError as e:
            raise RuntimeError("outer") from e
    if how == "exit":
        sys.exit(3)
    if how == "object":
        return {"good": 1, "bad": Odd()}
    if how == "set":
        return {1, 2}
    if how == "promptflow":
        from promptflow.exceptions import UserErrorException

        raise UserErrorException("mine")
    return how
