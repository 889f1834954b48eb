from promptflow.core import tool


def n():
    return 1
