import no_such_module_anywhere
from promptflow.core import tool


@tool
def n():
    return 1
