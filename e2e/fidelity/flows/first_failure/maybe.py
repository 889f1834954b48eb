from promptflow.core import tool


@tool
def maybe(fail: bool, after: str):
    if fail:
        raise AssertionError("failed")
    return "passed"
