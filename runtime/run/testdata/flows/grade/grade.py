from promptflow.core import tool


@tool
def grade(answer: str, truth: str):
    if answer == "raise":
        raise ValueError("asked to fail")
    return {"verdict": "right" if answer == truth else "wrong", "length": len(answer)}
