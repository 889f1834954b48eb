"""Runs batches with prompt flow's own batch engine, on its own executor and on the executor service at a URL.

Arguments: the service's URL. Standard input: a JSON list of {"folder", "lines"}; standard output for each what both gave.
"""

import json
import os
import re
import sys
import tempfile
from pathlib import Path

home = Path(tempfile.mkdtemp())
(home / "pf.yaml").write_text("telemetry:\n  enabled: false\n")
os.environ.setdefault("PF_HOME_DIRECTORY", str(home))

import httpx  # noqa: E402

from promptflow._constants import FlowLanguage  # noqa: E402
from promptflow._proxy._base_executor_proxy import APIBasedExecutorProxy  # noqa: E402
from promptflow._proxy._proxy_factory import ProxyFactory  # noqa: E402
from promptflow._proxy._python_executor_proxy import PythonExecutorProxy  # noqa: E402
from promptflow._utils.multimedia_utils import MultimediaProcessor  # noqa: E402
from promptflow.batch import BatchEngine  # noqa: E402
from promptflow.storage import AbstractRunStorage  # noqa: E402
from promptflow.tracing._utils import serialize  # noqa: E402

service = sys.argv[1] if len(sys.argv) > 1 else ""


class ServiceProxy(APIBasedExecutorProxy):
    """The executor service as the batch engine sees it."""

    output_dir = None
    definition = None

    @property
    def api_endpoint(self):
        return service

    @classmethod
    async def create(cls, flow_file, working_dir=None, *, connections=None, storage=None, init_kwargs=None, **kwargs):
        proxy = cls(working_dir=working_dir, enable_stream_output=False)
        async with httpx.AsyncClient() as client:
            response = await client.post(service + "/initialize", timeout=120, json={
                "working_dir": Path(working_dir).as_posix(), "flow_file": Path(flow_file).name, "output_dir": cls.output_dir.as_posix(),
                "connections": connections, "worker_count": kwargs.get("worker_count"), "line_timeout_sec": kwargs.get("line_timeout_sec"),
            })
        response.raise_for_status()
        cls.definition = response.json()
        await proxy.ensure_executor_health()
        return proxy

    async def destroy(self):
        async with httpx.AsyncClient() as client:
            response = await client.post(service + "/finalize", json={}, timeout=60)
        assert response.json() == {"status": "finalized"}, response.text


class Memory(AbstractRunStorage):
    def __init__(self):
        self.nodes, self.flows = [], []

    def persist_node_run(self, run_info):
        self.nodes.append(run_info)

    def persist_flow_run(self, run_info):
        self.flows.append(run_info)


UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")


def codes(error):
    chain = []
    while error:
        chain.append(error["code"])
        error = error.get("innerError")
    return chain


def plain(value, processor):
    """As records are written, with images by their names."""
    value = processor.persist_multimedia_data(value, None)
    return json.loads(json.dumps(serialize(value), default=repr))


def record(run, processor):
    out = {
        "run_id": run.run_id, "status": run.status.value, "inputs": plain(run.inputs, processor), "output": plain(run.output, processor), "index": run.index,
        "error": [codes(run.error), run.error["message"]] if run.error else None, "parent_run_id": run.parent_run_id, "message_format": run.message_format,
        "metrics": sorted(run.system_metrics or {}),
    }
    if hasattr(run, "node"):
        out["node"] = run.node
        out["stdout"] = (run.logs or {}).get("stdout", "").split("] ", 1)[-1]
    return out


def run(case, proxy):
    folder = Path(case["folder"])
    ProxyFactory.register_executor(FlowLanguage.Python, proxy)
    work = Path(tempfile.mkdtemp())
    data, output = work / "data.jsonl", work / "output"
    output.mkdir()
    data.write_text("".join(json.dumps(line) + "\n" for line in case["lines"]), encoding="utf-8")
    ServiceProxy.output_dir = output
    storage = Memory()
    engine = BatchEngine(folder / "flow.dag.yaml", folder, connections={}, storage=storage, worker_count=1)  # it mixes lines up that end out of order
    result = engine.run({"data": str(data)}, {name: "${data." + name + "}" for name in case["mapped"]}, output, run_id="batch")
    text = (output / "output.jsonl").read_text(encoding="utf-8")
    images = UUID.findall(text)
    processor = MultimediaProcessor.create(engine._message_format)
    summary = result.error_summary
    return {
        "status": result.status.value, "lines": [result.total_lines, result.completed_lines, result.failed_lines], "nodes": result.node_status, "metrics": result.metrics,
        "errors": [summary.failed_user_error_lines, summary.failed_system_error_lines, [[e.line_number, codes(e.error)] for e in summary.error_list or []],
                   {name: codes(error) for name, error in (summary.aggr_error_dict or {}).items()}],
        "output": [json.loads(UUID.sub("UUID", line)) for line in text.splitlines()],
        "images": [len(images), all(any(p.name.startswith(i) and p.stat().st_size for p in output.iterdir()) for i in images)],
        "flow_runs": sorted((record(r, processor) for r in latest(storage.flows)), key=lambda r: r["run_id"]),
        "node_runs": sorted((record(r, processor) for r in latest(storage.nodes) if r.status.value != "Running"), key=lambda r: r["run_id"]),
    }


def latest(runs):
    """The last record of each run: some are written when they begin, too."""
    return list({r.run_id: r for r in runs}.values())


def main():
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    out = []
    for case in json.load(sys.stdin):
        theirs = run(case, PythonExecutorProxy)
        ours = run(case, ServiceProxy)
        out.append({"theirs": theirs, "ours": ours, "definition": ServiceProxy.definition})
    json.dump(out, answers)
    answers.flush()
    os._exit(0)


if __name__ == "__main__":  # worker processes import this file
    main()
