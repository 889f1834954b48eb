"""Runs a flow on prompt flow's own executor and prints the lines, the node statuses and the metrics as JSON.

usage: upstream.py FLOW_FOLDER DATA_JSONL, with the connections as JSON on stdin
"""
import json
import os
import sys
from pathlib import Path

# Prompt flow logs to the standard output; the result alone is to be there.
answer = os.fdopen(os.dup(1), "w")
os.dup2(2, 1)

from promptflow.executor import FlowExecutor  # noqa: E402


def main(flow, data):
    executor = FlowExecutor.create(Path(flow) / "flow.dag.yaml", json.load(sys.stdin))
    lines = [json.loads(line) for line in Path(data).read_text(encoding="utf-8").splitlines()]
    results = [executor.exec_line(line, index=i) for i, line in enumerate(lines)]
    out = {
        "outputs": [r.output for r in results],
        "statuses": [{name: run.status.value for name, run in r.node_run_infos.items()} for r in results],
        "errors": [r.run_info.error for r in results],
        "metrics": {},
    }
    if executor.has_aggregation_node:
        inputs = {k: [{**r.run_info.inputs}[k] for r in results] for k in results[0].run_info.inputs}
        aggregated = {k: [r.aggregation_inputs[k] for r in results] for k in results[0].aggregation_inputs}
        out["metrics"] = executor.exec_aggregation(inputs, aggregated).metrics
    return out


if __name__ == "__main__":
    json.dump(main(*sys.argv[1:]), answer, default=str)
    answer.flush()
