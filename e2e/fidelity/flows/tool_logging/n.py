import logging
import sys

from promptflow.core import tool

handler = logging.StreamHandler(sys.stderr)


@tool
def n():
    logging.getLogger("fidelity").warning("logged")
    logging.getLogger("fidelity").info("not shown")
