import os
from promptflow.core import tool


@tool
def n():
    return ["inner", os.path.basename(os.getcwd()) == "src"]
