from promptflow.core import tool


@tool
def sum_up(all: list, a: list):
    return [all, a]
