import os

from promptflow.core import tool


@tool
def environment():
    return "|".join(os.environ[k] for k in ("FIDELITY_LIST", "FIDELITY_NUMBER", "FIDELITY_FLAG"))
