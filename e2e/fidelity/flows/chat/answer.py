from promptflow.core import tool


@tool
def answer(question: str, history: list):
    return f"{question} {len(history)}"
