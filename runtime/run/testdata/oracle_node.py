"""Runs single nodes with prompt flow's own executor: reads [{folder, node, inputs, outputs}, ...], prints what each gave."""

import json
import os
import sys
from pathlib import Path

from promptflow._utils.context_utils import _change_working_dir
from promptflow._utils.exception_utils import ExceptionPresenter
from promptflow._utils.multimedia_utils import MultimediaProcessor
from promptflow.executor.flow_executor import FlowExecutor
from promptflow.storage._run_storage import DummyRunStorage

answers = os.fdopen(os.dup(1), "w")
os.dup2(2, 1)


def codes(error):
    chain = []
    while error:
        chain.append(error["code"])
        error = error.get("innerError")
    return chain


def failure(error):
    return {"codes": codes(error), "message": error["message"]} if error else None


def run(case):
    folder = Path(case["folder"])
    try:
        with _change_working_dir(folder):
            info = FlowExecutor.load_and_exec_node(
                Path("flow.dag.yaml"), case["node"], flow_inputs=case["inputs"], dependency_nodes_outputs=case["outputs"], connections={}, working_dir=folder,
                storage=DummyRunStorage(),
            )
    except Exception as error:
        return {"failure": failure(ExceptionPresenter.create(error).to_dict())}
    finally:
        while str(folder) in sys.path:
            sys.path.remove(str(folder))
    processor = MultimediaProcessor.create(info.message_format)
    plain = lambda v: json.loads(json.dumps(processor.persist_multimedia_data(v, None), default=str))  # noqa: E731
    return {
        "status": info.status.value, "node": info.node, "index": info.index, "error": failure(info.error),
        "inputs": plain(info.inputs), "output": plain(info.output),
        "reduces": info.run_id.endswith("_reduce"),
    }


answers.write(json.dumps([run(case) for case in json.load(sys.stdin)]))
answers.flush()
