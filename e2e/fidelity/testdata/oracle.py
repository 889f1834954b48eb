"""Runs flows with prompt flow's own executor and prints what they gave.

Reads {"parallel": N, "timeout": SECONDS, "jobs": [{"id", "folder", "file", "setup", "cases", "connections"}]} from the standard
input and prints one JSON document per job, {"id", "result"} or {"id", "broken"}, as they end. This process imports prompt flow once
and forks for every job, so that no flow sees another one's modules or environment.
"""

import faulthandler
import json
import os
import re
import selectors
import shutil
import signal
import sys
import tempfile
import time
import traceback
from pathlib import Path

answers = os.fdopen(os.dup(1), "w")
os.dup2(2, 1)  # prompt flow logs to the standard output

from promptflow._utils.dataclass_serializer import convert_eager_flow_output_to_dict  # noqa: E402
from promptflow._utils.exception_utils import ExceptionPresenter  # noqa: E402
from promptflow._utils.execution_utils import (  # noqa: E402
    apply_default_value_for_input,
    collect_lines,
    get_aggregation_inputs_properties,
)
from promptflow._utils.flow_utils import parse_variant, resolve_flow_path  # noqa: E402
from promptflow._utils.logger_utils import LogContext  # noqa: E402
from promptflow._sdk._load_functions import load_flow  # noqa: E402
from promptflow._sdk._orchestrator.utils import flow_overwrite_context  # noqa: E402
from promptflow._sdk._utilities.signature_utils import update_signatures  # noqa: E402
from promptflow._sdk.operations import FlowOperations  # noqa: E402
from promptflow._utils.utils import AttrDict, transpose  # noqa: E402
from promptflow._utils.yaml_utils import dump_yaml, load_yaml  # noqa: E402
from promptflow.batch._errors import EmptyInputsData  # noqa: E402
from promptflow.contracts.flow import Flow  # noqa: E402
from promptflow.contracts.run_info import Status  # noqa: E402
from promptflow.core import _prompty_utils  # noqa: E402
from promptflow.core._connection_provider._connection_provider import ConnectionProvider  # noqa: E402
from promptflow.core._connection_provider._dict_connection_provider import DictConnectionProvider  # noqa: E402
from promptflow.core._utils import load_inputs_from_sample, update_dict_value_with_connections  # noqa: E402
from promptflow.executor._prompty_executor import PromptyExecutor  # noqa: E402
from promptflow.executor._script_executor import ScriptExecutor  # noqa: E402
from promptflow.executor.flow_executor import FlowExecutor  # noqa: E402
from promptflow.executor.flow_validator import FlowValidator  # noqa: E402
from promptflow.tracing._utils import serialize  # noqa: E402


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
    return {"codes": codes(error), "message": error["message"], "type": details.get("type"), "line": details.get("lineno")}


def raised(error):
    return {"failure": failure(ExceptionPresenter.create(error).to_dict())}


def plain(value):
    return json.loads(json.dumps(serialize(value), default=repr))


STAMP = re.compile(r"\[\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\+0000\] ")  # before everything that a node writes


def written(run):
    return {name: STAMP.sub("", text) for name, text in (run.logs or {}).items()}


def metrics(run):
    return {name: name == "duration" or value for name, value in (run.system_metrics or {}).items()}


def node(run):
    return {
        "status": run.status.value, "run_id": run.run_id, "inputs": plain(run.inputs), "output": plain(run.output), "error": failure(run.error),
        "index": run.index, "parent_run_id": run.parent_run_id, "flow_run_id": run.flow_run_id, "logs": written(run),
        "metrics": metrics(run), "message_format": run.message_format,
    }


def nodes(runs):
    # A node that still runs when its line failed is left alone by prompt flow and cancelled by us.
    return {name: node(run) for name, run in sorted(runs.items()) if run.status is not Status.Running}


def line(executor, result):
    info = result.run_info
    output = result.output
    if info.status is not Status.Completed:
        output = None
    elif isinstance(executor, ScriptExecutor):
        output = convert_eager_flow_output_to_dict(output)
    if isinstance(output, dict):
        output = {k: v for k, v in output.items() if k != "line_number"}
    output = executor._multimedia_processor.persist_multimedia_data(output, None)
    return {
        "status": info.status.value, "run_id": info.run_id, "index": info.index, "inputs": plain(info.inputs), "output": plain(output),
        "error": failure(info.error), "nodes": nodes(result.node_run_infos), "metrics": metrics(info),
        "message_format": info.message_format, "flow_id": info.flow_id,
    }


def aggregate(executor, inputs, aggregation_inputs):
    try:
        result = executor.exec_aggregation(inputs, aggregation_inputs, "run")
    except Exception as e:
        return raised(e)
    if not result.node_run_infos and not result.metrics:
        return None
    return {"nodes": nodes(result.node_run_infos), "metrics": plain(result.metrics)}


def has_aggregation(executor):
    return executor.has_aggregation_node and getattr(executor, "_aggr_func", True) is not None


def one(executor, inputs):
    """As a flow test: one line, and the aggregation over it."""
    if not inputs and isinstance(executor, PromptyExecutor):
        inputs = load_inputs_from_sample(executor.prompty._data.get("sample")) or {}
    try:
        result = executor.exec_line(inputs, index=0, run_id="run")
    except Exception as e:  # of the inputs of flex flows and prompty
        return raised(e)
    aggregation = None
    if result.aggregation_inputs:
        lists = {k: [v] for k, v in result.aggregation_inputs.items()}
        aggregation = aggregate(executor, {k: [v] for k, v in inputs.items()}, lists)
    return {"lines": [line(executor, result)], "aggregation": aggregation}


NO_LINES = "Couldn't find any inputs data at the given input paths. Please review the provided path and consider resubmitting."


def batch(executor, flow, lines):
    """As the batch engine: the lines, then the aggregation over those that completed."""
    try:
        if flow is not None:
            FlowValidator.ensure_flow_valid_in_batch_mode(flow)
        if not lines:
            raise EmptyInputsData(message_format=NO_LINES)
    except Exception as e:
        return raised(e)
    flex = isinstance(executor, ScriptExecutor)
    inputs = lines if flex else [apply_default_value_for_input(flow.inputs, i) for i in lines]
    results = []
    for n, i in enumerate(inputs):
        try:
            results.append(executor.exec_line(i, index=n, run_id="run"))
        except Exception as e:
            return raised(e)
    aggregation = None
    done = [n for n, r in enumerate(results) if r.run_info.status is Status.Completed]
    if flex and has_aggregation(executor):
        outputs = [results[n].output for n in done]
        aggregation = aggregate(executor, None, [AttrDict(o) if isinstance(o, dict) else o for o in outputs])
    elif not flex and executor.has_aggregation_node:
        given = transpose([inputs[n] for n in done], keys=list(flow.inputs))
        references = transpose([r.aggregation_inputs for r in results], keys=get_aggregation_inputs_properties(flow))
        aggregation = aggregate(executor, given, collect_lines(done, references))
    return {"lines": [line(executor, r) for r in results], "aggregation": aggregation}


def single(path, file, connections, case):
    """As a node test: one node, with what the nodes before it gave."""
    try:
        run = FlowExecutor.load_and_exec_node(
            file, case["node"], flow_inputs=case.get("inputs") or {}, dependency_nodes_outputs=case.get("dependency_outputs") or {},
            connections=connections, working_dir=path,
        )
    except Exception as e:
        return raised(e)
    # The node of a node test has a run of its own, with a random id.
    return {"node": {k: v for k, v in node(run).items() if not k.endswith("run_id")}}


def run_case(executor, flow, path, file, connections, case):
    if "node" in case:
        return single(path, file, connections, case)
    if "lines" in case:
        return batch(executor, flow, case["lines"])
    return one(executor, case.get("inputs") or {})


def resolve(folder, setup, copy):
    """Returns a folder of its own for the flow and the flow's file, after what prompt flow's SDK does before a flow test: it merges
    the additional includes, chooses the variants, and writes down the signature of a flex flow."""
    folder, file = resolve_flow_path(folder, allow_prompty_dir=True)
    try:
        dag = {} if file.endswith(".prompty") else load_yaml(folder / file)
    except Exception:
        dag = None  # the executor will say so
    if not isinstance(dag, dict) or not (dag.get("additional_includes") or setup.get("variant") or "entry" in dag):
        if copy:
            shutil.copytree(folder, copy, symlinks=True)
        return copy or folder, file
    copy = copy or Path(tempfile.mkdtemp(dir=os.environ["FIDELITY_TEMPORARY"])) / folder.name
    with FlowOperations._resolve_additional_includes(folder / file) as included:
        shutil.copytree(included.parent, copy)
    if "entry" in dag:
        sign(copy, file)
    elif setup.get("variant"):
        node, variant = parse_variant(setup["variant"])
        with flow_overwrite_context(load_flow(copy), tuning_node=node, variant=variant) as flow:
            shutil.copyfile(flow.path, copy / file)
    return copy, file


def sign(folder, file):
    """Writes the signature that the SDK finds in the code into a flow; where it finds none, the executor makes do without."""
    dag = load_yaml(folder / file)
    try:
        update_signatures(code=folder, data=dag)
    except Exception:
        traceback.print_exc()
        return
    with open(folder / file, "w", encoding="utf-8") as f:
        f.write(dump_yaml(dag))


def stored(provider):
    """Stands for the SDK's store of connections on disk, which prompty files ask."""

    def by_name(name):
        connection = provider.get(name)
        return connection._to_execution_connection_dict()["value"], connection.TYPE

    return by_name


def prepare(job, places):
    """Loads a flow and returns what runs its cases."""
    setup, connections = job.get("setup") or {}, job.get("connections") or {}
    root = Path(tempfile.mkdtemp(dir=os.environ["FIDELITY_TEMPORARY"]))  # flows may write beside their code
    original = Path(job["folder"])
    copy = None if job.get("in_place") else root / original.name
    places += [str(original), str(copy or original)]
    if job.get("file"):
        path, file = original, job["file"]
    else:
        path, file = resolve(original, setup, copy)
    places.append(str(path))
    os.chdir(path)
    flow, environment = None, setup.get("environment") or {}
    if not file.endswith(".prompty"):
        environment = Flow.load_env_variables(Path(file), path, environment)
    provider = ConnectionProvider._instance = DictConnectionProvider(connections)
    _prompty_utils.get_connection_by_name = stored(provider)
    update_dict_value_with_connections(connections, environment)
    os.environ.update(environment)
    executor = None
    if not job["cases"] or not all("node" in c for c in job["cases"]):
        executor = FlowExecutor.create(Path(file), connections, path, raise_ex=False, init_kwargs=setup.get("init"), line_timeout_sec=setup.get("line_timeout_sec"))
        if not isinstance(executor, ScriptExecutor):
            flow = Flow.from_yaml(Path(file), path)
    return lambda case: run_case(executor, flow, path, Path(file), connections, case)


def secrets(connections):
    return [str(c["value"].get(key)) for c in connections.values() for key in c.get("secret_keys") or [] if c["value"].get(key)]


def perform(job, places):
    with LogContext(os.devnull, credential_list=secrets(job.get("connections") or {})):
        try:
            run = prepare(job, places)
        except Exception as e:
            return raised(e)
        return {"cases": [run(c) for c in job["cases"]]}


def child(job, out):
    os.setpgid(0, 0)
    faulthandler.enable()
    places = []
    try:
        answer = {"id": job["id"], "result": perform(job, places), "places": sorted(set(places), key=len, reverse=True)}
    except BaseException as e:
        answer = {"id": job["id"], "broken": "".join(traceback.format_exception(e))}
    with open(out, "w") as f:
        json.dump(answer, f)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)  # nothing that a flow left behind is waited for


def main(request):
    from promptflow.tools import embedding  # noqa: F401  every llm node needs promptflow-tools, which take long to import

    temporary = os.environ["FIDELITY_TEMPORARY"]
    waiting, running = list(reversed(request["jobs"])), {}
    selector = selectors.DefaultSelector()

    def end(fd):
        pid, job, out, _ = running.pop(fd)
        selector.unregister(fd)
        os.close(fd)
        _, status = os.waitpid(pid, 0)
        try:
            os.killpg(pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        text = Path(out).read_text() if os.path.exists(out) else json.dumps({"id": job["id"], "broken": f"the process ended with status {status}"})
        answers.write(text + "\n")
        answers.flush()

    while waiting or running:
        while waiting and len(running) < request["parallel"]:
            job = waiting.pop()
            out = os.path.join(temporary, f"answer-{job['id']}.json")
            pid = os.fork()
            if pid == 0:
                child(job, out)
            fd = os.pidfd_open(pid)
            running[fd] = (pid, job, out, time.monotonic() + request["timeout"])
            selector.register(fd, selectors.EVENT_READ)
        nearest = min(deadline for *_, deadline in running.values()) - time.monotonic()
        for key, _ in selector.select(max(nearest, 0)):
            end(key.fd)
        for fd, (pid, job, out, deadline) in list(running.items()):
            if time.monotonic() >= deadline:
                os.kill(pid, signal.SIGKILL)
                with open(out, "w") as f:
                    json.dump({"id": job["id"], "timeout": request["timeout"]}, f)
                end(fd)


if __name__ == "__main__":
    main(json.load(sys.stdin))
