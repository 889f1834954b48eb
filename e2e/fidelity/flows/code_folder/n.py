import os
from promptflow.core import tool


@tool
def n():
    return ["outer", os.path.basename(os.getcwd()) == "src"]
