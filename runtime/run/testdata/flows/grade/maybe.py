from promptflow.core import tool


@tool
def maybe(answer: str):
    return answer.upper()
