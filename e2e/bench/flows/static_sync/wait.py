import time

from promptflow.core import tool


@tool
def wait(question: str, history: list) -> str:
    time.sleep(0.25)
    return "waited"
