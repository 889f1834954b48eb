from promptflow.core import tool

value = {}["missing"]


@tool
def n():
    return 1
