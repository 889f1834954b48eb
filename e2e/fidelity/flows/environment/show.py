import os

from promptflow.core import tool

ON_IMPORT = os.environ.get("FIDELITY_TEXT")


@tool
def show():
    found = {k: v for k, v in sorted(os.environ.items()) if k.startswith("FIDELITY_") and k not in ("FIDELITY_TEMPORARY", "FIDELITY_ONLY", "FIDELITY_VERBOSE")}
    return {"found": found, "on import": ON_IMPORT}
