from promptflow.core import tool


@tool
def hi(name: str, sign: str):
    return f"hi {name}{sign}"
