import time

from promptflow.core import tool


@tool
def wait(seconds: int, before: str):
    time.sleep(seconds)
    return seconds
