"""Prints what prompt flow's own packages say of flow folders, one JSON document per folder."""

import json
import os
import sys
from pathlib import Path

from promptflow._utils.context_utils import _change_working_dir
from promptflow._utils.exception_utils import ExceptionPresenter
from promptflow.executor.flow_executor import FlowExecutor


def codes(error):
    chain = []
    while error:
        chain.append(error["code"])
        error = error.get("innerError")
    return chain


def create(folder, connections):
    """The error of making an executor."""
    try:
        with _change_working_dir(folder):
            FlowExecutor.create(Path("flow.dag.yaml"), connections, Path(folder))
    except Exception as error:
        shown = ExceptionPresenter.create(error).to_dict()
        return {"codes": codes(shown), "outer": type(error).__name__, "message": shown["message"]}
    finally:
        while folder in sys.path:
            sys.path.remove(folder)
    return None


def validate(folder, _):
    """What `pf flow validate` prints."""
    from promptflow.client import PFClient

    return PFClient().flows.validate(folder)._to_dict()


def tools(folder, _):
    """What prompt flow writes into flow.tools.json, and the errors beside it."""
    from promptflow.client import PFClient

    meta, errors = PFClient().flows._generate_tools_meta(folder)
    return {"tools": meta, "errors": errors}


def main(what, connections, folders):
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    with open(connections) as file:
        connections = json.load(file)
    for folder in folders:
        answers.write(json.dumps({"create": create, "validate": validate, "tools": tools}[what](folder, connections)) + "\n")
        answers.flush()


if __name__ == "__main__":  # a generator in a process of its own imports this file again
    main(sys.argv[1], sys.argv[2], sys.argv[3:])
