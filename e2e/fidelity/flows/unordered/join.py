import os

from promptflow.core import tool


@tool
def join(a, b):
    return f"({a} {b} {os.environ.get('FIDELITY_UNORDERED')})"
