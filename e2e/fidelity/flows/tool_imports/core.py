from promptflow.core import tool
from promptflow.tracing import trace


@trace
def inner(x):
    return x + 1


@tool
def core(x: int):
    return inner(inner(x))
