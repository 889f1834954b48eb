from promptflow.core import tool


@tool
def n():
    print("hello")
