import sys

from promptflow.core import tool

if len(sys.argv) > 100:
    sys.exit(3)


@tool
def n():
    return 1
