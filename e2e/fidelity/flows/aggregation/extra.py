from promptflow.core import tool


@tool
def extra(verdict: str):
    return verdict.upper()
