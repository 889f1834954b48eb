import sys

from promptflow.core import tool


@tool
def n():
    return "npf_tools.text" in sys.modules
