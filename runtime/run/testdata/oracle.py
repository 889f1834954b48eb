"""Runs flows with prompt flow's own executor and prints what they gave, one JSON document per flow folder."""

import json
import os
import re
import sys
from pathlib import Path

from promptflow._utils.exception_utils import ExceptionPresenter
from promptflow._utils.execution_utils import apply_default_value_for_input, collect_lines, get_aggregation_inputs_properties
from promptflow._utils.context_utils import _change_working_dir
from promptflow._utils.utils import transpose
from promptflow.contracts.flow import Flow
from promptflow.contracts.run_info import Status
from promptflow.executor.flow_executor import FlowExecutor
from promptflow.executor.flow_validator import FlowValidator
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
    details = info.get("ToolExecutionErrorDetails") or {}
    return {"codes": codes(error), "message": re.sub(r"(?s)(Get connection '.*' for node '.*' error: ).*", r"\1", error["message"]), "type": details.get("type"), "line": details.get("lineno")}


def plain(value):
    return json.loads(json.dumps(serialize(value), default=repr))


def node(run):
    return {
        "node": run.node, "run_id": run.run_id, "status": run.status.value, "inputs": plain(run.inputs), "output": plain(run.output),
        "error": failure(run.error), "index": run.index, "parent_run_id": run.parent_run_id, "flow_run_id": run.flow_run_id,
        "stdout": (run.logs or {}).get("stdout", "").split("] ", 1)[-1] if run.logs else None,
        "api_calls": plain(run.api_calls),
    }


def nodes(runs):
    # A node that still runs when its line failed is left alone by prompt flow and cancelled by us.
    return {name: node(run) for name, run in sorted(runs.items()) if run.status is not Status.Running}


def line(executor, result):
    info = result.run_info
    output = executor._multimedia_processor.persist_multimedia_data({k: v for k, v in result.output.items() if k != "line_number"}, None)
    return {
        "status": info.status.value, "run_id": info.run_id, "index": info.index, "inputs": plain(info.inputs),
        "output": plain(output) if info.status is Status.Completed else None,
        "error": failure(info.error), "nodes": nodes(result.node_run_infos), "metrics": sorted(info.system_metrics),
    }


def aggregate(executor, inputs, aggregation_inputs, run_id):
    try:
        result = executor.exec_aggregation(inputs, aggregation_inputs=aggregation_inputs, run_id=run_id)
    except Exception as e:
        return {"failure": failure(ExceptionPresenter.create(e).to_dict())}
    return {"nodes": nodes(result.node_run_infos), "metrics": plain(result.metrics)}


def one(executor, inputs):
    result = executor.exec_line(inputs, index=0, run_id="run")
    aggregation = None
    if result.aggregation_inputs:
        lists = {k: [v] for k, v in result.aggregation_inputs.items()}
        aggregation = aggregate(executor, {k: [v] for k, v in inputs.items()}, lists, "run")
    return {"lines": [line(executor, result)], "aggregation": aggregation}


def batch(executor, flow, lines):
    try:
        FlowValidator.ensure_flow_valid_in_batch_mode(flow)
    except Exception as e:
        return {"failure": failure(ExceptionPresenter.create(e).to_dict())}
    inputs = [apply_default_value_for_input(flow.inputs, i) for i in lines]
    results = [executor.exec_line(i, index=n, run_id="run") for n, i in enumerate(inputs)]
    aggregation = None
    if executor.has_aggregation_node:
        done = [n for n, r in enumerate(results) if r.run_info.status is Status.Completed]
        lists = transpose([inputs[n] for n in done], keys=list(flow.inputs))
        references = transpose([r.aggregation_inputs for r in results], keys=get_aggregation_inputs_properties(flow))
        aggregation = aggregate(executor, lists, collect_lines(done, references), "run")
    return {"lines": [line(executor, r) for r in results], "aggregation": aggregation}


def run(folder):
    path = Path(folder)
    cases = json.loads((path / "cases.json").read_text()) if (path / "cases.json").exists() else []
    try:
        with _change_working_dir(path):
            flow = Flow.from_yaml(Path("flow.dag.yaml"), path)
            os.environ.update(flow.get_environment_variables_with_overrides())
            executor = FlowExecutor.create(Path("flow.dag.yaml"), json.loads(os.environ.get("ORACLE_CONNECTIONS", "{}")), path, raise_ex=False)
            return {"cases": [one(executor, c["inputs"]) if "inputs" in c else batch(executor, flow, c["lines"]) for c in cases]}
    except Exception as e:
        return {"failure": failure(ExceptionPresenter.create(e).to_dict())}
    finally:
        while str(path) in sys.path:
            sys.path.remove(str(path))


answers = os.fdopen(os.dup(1), "w")
os.dup2(2, 1)
for folder in sys.argv[1:]:
    answers.write(json.dumps(run(folder)) + "\n")
    answers.flush()
