"""Runs llm nodes on prompt flow's own executor. On stdin a JSON list of cases, each with the node's parts, the flow's inputs
and its connection; on stdout what each gave: output, recorded inputs, or the error's codes and message."""
import json
import os
import sys
import tempfile
from pathlib import Path

answer = os.fdopen(os.dup(1), "w")
os.dup2(2, 1)

from promptflow._utils.exception_utils import ExceptionPresenter  # noqa: E402
from promptflow.executor import FlowExecutor  # noqa: E402


def failure(codes, message):
    return {"codes": codes, "message": message}


def chain(error):
    codes = []
    while error:
        codes.append(error["code"])
        error = error.get("innerError")
    return codes


def run(case, folder):
    (folder / "prompt.jinja2").write_text(case["prompt"], encoding="utf-8")
    node = {"name": "ask", "type": "llm", "source": {"type": "code", "path": "prompt.jinja2"}, "inputs": case["inputs"],
            "connection": "conn", "api": case["api"]}
    outputs = {"answer": {"type": "string", "reference": "${ask.output}"}} if case.get("stream", False) else {}
    flow = {"inputs": {k: {"type": "object"} for k in case["flow_inputs"]}, "outputs": outputs, "nodes": [node]}
    (folder / "flow.dag.yaml").write_text(json.dumps(flow), encoding="utf-8")
    try:
        executor = FlowExecutor.create(folder / "flow.dag.yaml", {"conn": case["connection"]}, raise_ex=False)
    except Exception as error:
        return failure(ExceptionPresenter.create(error).error_codes, str(error))
    if case.get("stream", False):
        executor.enable_streaming_for_llm_flow(lambda: True)
    result = executor.exec_line(case["flow_inputs"], allow_generator_output=case.get("stream", False))
    info = result.node_run_infos["ask"]
    if info.error:
        return {"inputs": info.inputs, **failure(chain(info.error), info.error["message"])}
    if case.get("stream", False):
        return {"inputs": info.inputs, "output": list(result.output["answer"])}
    return {"inputs": info.inputs, "output": info.output}


def main():
    out = []
    for case in json.load(sys.stdin):
        with tempfile.TemporaryDirectory() as folder:
            out.append(run(case, Path(folder)))
            os.chdir("/")
    json.dump(out, answer, default=str)
    answer.flush()


if __name__ == "__main__":
    main()
