"""Runs flex flows and prompty files with prompt flow's own executors, as its development kit makes them for a test or a batch or as its
serving app does, and prints what they gave: one JSON document per case. Every case runs in a process of its own."""

import contextlib
import json
import os
import re
import sys
import tempfile
import urllib.request
from pathlib import Path

os.environ["PF_FLOW_META_LOAD_IN_SUBPROCESS"] = "false"

from promptflow._sdk._utilities.signature_utils import infer_signature_for_flex_flow, merge_flow_signature
from promptflow._utils.dataclass_serializer import convert_dataclass_to_dict
from promptflow._utils.exception_utils import ExceptionPresenter
from promptflow._utils.flow_utils import resolve_flow_path
from promptflow._utils.utils import AttrDict
from promptflow._utils.yaml_utils import dump_yaml, load_yaml
from promptflow.contracts.flow import FlexFlow
from promptflow.contracts.run_info import Status
from promptflow.core import _prompty_utils
from promptflow.core._connection_provider._connection_provider import ConnectionProvider
from promptflow.core._connection_provider._dict_connection_provider import DictConnectionProvider
from promptflow.core._prompty_utils import resolve_references
from promptflow.core._utils import load_inputs_from_sample, update_environment_variables_with_connections
from promptflow.executor.flow_executor import FlowExecutor
from promptflow.tracing._utils import serialize


def codes(error):
    chain = []
    while error:
        chain.append(error["code"])
        error = error.get("innerError")
    return chain


def failure(error):
    if error is None:
        return None
    info = {i["type"]: i["info"] for i in error.get("additionalInfo") or []}
    details = info.get("FlexFlowExecutionErrorDetails") or {}
    shown = {
        "codes": codes(error), "message": error["message"], "type": details.get("type"), "detail": details.get("message"),
        "traceback": (details.get("traceback") or "").strip().split("\n")[-1],
    }
    return {k: re.sub("Available keys are .*", "…", v) if isinstance(v, str) else v for k, v in shown.items()}


def raised(error):
    return failure(ExceptionPresenter.create(error).to_dict())


def plain(value):
    return json.loads(json.dumps(serialize(value), default=repr))


def signed(path, target):
    """What the development kit makes of a flex flow's YAML before it is run (override_flow_yaml). What it refuses is left alone, and
    the code's defaults are left to the code, which see. Returns the inputs that have one."""
    data = dict(load_yaml(path))
    written = set(data.get("inputs") or ())
    data["sample"] = resolve_references(data.get("sample") or {}, base_path=path.parent)
    optional = set()
    with contextlib.suppress(BaseException):
        found, _, _ = infer_signature_for_flex_flow(data.get("entry"), language="python", code=path.parent.as_posix(), validate=False)
        found.pop("init", None)
        merged = merge_flow_signature(found, {k: v for k, v in data.items() if k != "init"})
        for name, port in merged.get("inputs", {}).items():
            if name not in written and port.get("default"):
                optional.add(name)
                del port["default"]
        data.update(merged)
    with open(target, "w") as file:
        dump_yaml(data, file)
    return optional


def executor_of(case, path, connections):
    options = {"init_kwargs": case.get("init"), "raise_ex": False}
    if path.suffix == ".prompty":
        return FlowExecutor.create(Path(path.name), connections, path.parent, **options)
    flow = FlexFlow.deserialize(load_yaml(path))
    os.environ.update(flow.get_environment_variables_with_overrides())
    update_environment_variables_with_connections(connections)
    if case.get("serving"):
        return FlowExecutor.create(Path(path.name), connections, path.parent, **options)
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder) / path.name
        optional = signed(path, target)
        executor = FlowExecutor.create(target, connections, path.parent, **options)
        executor.optional = optional
        return executor


def line(executor, inputs, index):
    sign = executor._inputs_sign
    try:
        executor._inputs_sign = {k: v for k, v in sign.items() if k in (inputs or {}) or k not in getattr(executor, "optional", ())}
        result = executor.exec_line(inputs, index=index, run_id="run")
    except Exception as e:
        return {"status": "Failed", "output": None, "error": raised(e), "inputs": plain(inputs)}, None
    finally:
        executor._inputs_sign = sign
    info = result.run_info
    output = result.output
    if isinstance(output, dict):
        output.pop("line_number", None)
    done = info.status is Status.Completed
    shown = convert_dataclass_to_dict(output)
    if not isinstance(shown, dict):
        shown = {"output": shown}
    return {"status": info.status.value, "output": plain(shown) if done else None, "error": failure(info.error), "inputs": plain(info.inputs)}, output if done else None


def run(case, path, connections):
    try:
        executor = executor_of(case, path, connections)
    except Exception as e:
        error = raised(e)
        error["message"] = re.sub(r"/\S*/flow.flex.yaml", "flow.flex.yaml", error["message"])
        return {"failure": error}
    if "lines" not in case:
        inputs = case["inputs"]
        if path.suffix == ".prompty" and not inputs and not case.get("serving"):
            inputs = load_inputs_from_sample(executor.prompty._sample)
        return {"lines": [line(executor, inputs, None if case.get("serving") else 0)[0]], "metrics": {}}
    lines = [line(executor, inputs, i) for i, inputs in enumerate(case["lines"])]
    metrics = {}
    if executor.has_aggregation_node:
        outputs = [convert_dataclass_to_dict(o) for shown, o in lines if shown["status"] == "Completed"]
        outputs = [AttrDict(o) if isinstance(o, dict) else o for o in outputs]
        metrics = executor.exec_aggregation(None, outputs, run_id="run").metrics
    return {"lines": [shown for shown, _ in lines], "metrics": plain(metrics)}


def provide(connections):
    """Connections come from a file here; prompt flow's own would come from its database."""
    provider = ConnectionProvider._instance = DictConnectionProvider(json.loads(json.dumps(connections)))

    def by_name(name):
        connection = provider.get(name)
        return connection._to_execution_connection_dict()["value"], connection.TYPE

    _prompty_utils.get_connection_by_name = by_name


def mark(path):
    """Tells the fake model, if there is one, which file's requests follow."""
    with contextlib.suppress(OSError, KeyError):
        urllib.request.urlopen(f"{os.environ['SCRIPTS_MARK']}/mark/{path.name}")


def main(path, connections_file):
    path = Path(path)
    mark(path)
    connections = json.loads(Path(connections_file).read_text())
    os.chdir(path.parent)
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    cases = path.parent / "cases.json"
    if path.suffix == ".prompty":
        cases = path.with_suffix(".json")
    for case in json.loads(cases.read_text()):
        if os.fork() == 0:
            provide(connections)
            answers.write(json.dumps(run(case, path, connections)) + "\n")
            answers.flush()
            os._exit(0)
        os.wait()


for path in sys.argv[2:]:
    if os.fork() == 0:
        main(path, sys.argv[1])
        os._exit(0)
    os.wait()
