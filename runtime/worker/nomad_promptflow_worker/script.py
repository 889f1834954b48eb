"""Runs flex flows and prompty files with prompt flow's own executors."""

import contextlib
import importlib
import json
import pickle
import sys
from collections.abc import AsyncIterator, Iterator
from dataclasses import is_dataclass
from pathlib import Path

from promptflow._core.tool_meta_generator import collect_flow_entry_in_module, generate_flow_meta_dict_by_object
from promptflow._utils.dataclass_serializer import convert_eager_flow_output_to_dict
from promptflow._utils.flow_utils import is_prompty_flow
from promptflow._utils.utils import AttrDict
from promptflow._utils.yaml_utils import load_yaml
from promptflow.contracts.flow import FlexFlow
from promptflow.contracts.run_mode import RunMode
from promptflow.core._prompty_utils import resolve_references
from promptflow.core._utils import load_inputs_from_sample
from promptflow.executor._errors import ScriptExecutionError
from promptflow.executor._prompty_executor import PromptyExecutor
from promptflow.executor._result import LineResult
from promptflow.executor._script_executor import ScriptExecutor
from promptflow.executor.flow_validator import FlowValidator
from promptflow.storage._run_storage import DummyRunStorage
from promptflow.tracing._operation_context import OperationContext

from . import values
from .calls import is_cancellation

class _Apart:
    """What both executors do otherwise here: their capture of output, which is one for the whole process, is left out (output.py
    captures by call); every call has an operation context of its own; and the line's number is not put into the flow's own dict."""

    @contextlib.contextmanager
    def _exec_line_context(self, run_id, line_number):
        OperationContext.set_instance(OperationContext.get_instance().copy())
        with self._update_operation_context(run_id, line_number):
            yield

    def _construct_line_result(self, output, run_info):
        return LineResult(output, {}, run_info, {})


class _Prompty(_Apart, PromptyExecutor):
    pass


class _Flex(_Apart, ScriptExecutor):
    """With signature, values of inputs that the YAML does not speak of are converted as the entry's code annotates them, as the
    development kit has it for tests and batches (serving converts by the YAML alone). The code's defaults are left to Python: the
    development kit puts them in as text, which __init__ then gets as such, and lists cannot be read back."""

    def __init__(self, *arguments, signature, **options):
        self._signature = signature
        self._optional = {}  # inputs with a default in the code
        super().__init__(*arguments, **options)

    def _apply_sample_init(self, init_kwargs):  # the first step after the YAML was read
        if self._flow is not None and self._signature:
            file = self._working_dir / self._flow_file
            self._flow.sample = resolve_references(self._flow.sample, base_path=file.parent)
            inputs = self._flow.inputs or FlexFlow.deserialize(_completed(file)).inputs
            self._optional = {k: i for k, i in inputs.items() if k not in self._flow.inputs and i.default not in (None, "")}
            self._flow.inputs = {k: i for k, i in inputs.items() if k not in self._optional}
        return super()._apply_sample_init(init_kwargs)

    def _exec_line_preprocess(self, *arguments, **options):
        run_info, inputs, *rest = super()._exec_line_preprocess(*arguments, **options)
        return run_info, FlowValidator._resolve_flow_inputs_type_inner(self._optional, inputs), *rest


def _completed(file):
    """The YAML with what it does not say of the signature taken from the code. Code whose signature the development kit refuses adds
    nothing: the flow runs all the same."""
    data = dict(load_yaml(file))
    try:
        module = importlib.import_module(data["entry"].split(":")[0])
        inferred = generate_flow_meta_dict_by_object(*collect_flow_entry_in_module(module, data["entry"]))
    except Exception:
        inferred = {}
    return {**data, **{port: data.get(port) or inferred[port] for port in ("inputs", "outputs") if port in inferred}}


class Script:
    """A flow without nodes."""

    def __init__(self, directory, spec, provider):
        self.file = Path(directory) / spec["file"]
        self._directory = directory
        self._spec = spec
        self._provider = provider
        self._is_prompty = is_prompty_flow(self.file)
        self.executor = None

    def load(self):
        """Imports the entry's module. What is wrong with it is said by start, in prompt flow's words."""
        if self._is_prompty:
            return
        with contextlib.suppress(Exception):
            importlib.import_module(load_yaml(self.file)["entry"].split(":")[0])

    def start(self):
        options = {"working_dir": self._directory, "storage": DummyRunStorage(), "init_kwargs": self._spec["init"]}
        file = Path(self._spec["file"])
        if self._is_prompty:
            self.executor = _Prompty(file, self._provider, **options)
        else:
            self.executor = _Flex(file, self._provider, signature=self._spec["signature"], **options)

    @property
    def is_async(self):
        return self.executor._is_async

    def describe(self):
        return {
            "async": self.is_async,
            "aggregates": self.executor.has_aggregation_node,
            **(self._prompty_interface() if self._is_prompty else self._flex_interface()),
        }

    def _prompty_interface(self):
        outputs = self.executor.prompty._get_output_signature(include_primitive_output=True)
        return {"inputs": _definitions(self.executor._inputs_sign), "outputs": [(n, o.get("type", "string")) for n, o in outputs.items()]}

    def _flex_interface(self):
        """Inputs and outputs as callers see them, completed from the code also where values are converted by the YAML alone."""
        flow = FlexFlow.deserialize(_completed(self.file))
        return {"inputs": _definitions(flow.inputs), "outputs": [(n, o.type.value) for n, o in flow.outputs.items()]}


def _definitions(inputs):
    return [
        {
            "name": name,
            "type": getattr(i.type, "value", i.type),
            "default": values.any_record_json(i.default).decode(),
            "is_chat_input": bool(i.is_chat_input),
            "is_chat_history": name == "chat_history" if i.is_chat_history is None else bool(i.is_chat_history),
        }
        for name, i in inputs.items()
    ]


class Line:
    """One line of a script. parts go with any outcome."""

    def __init__(self, worker, head, parts):
        self._objects = worker.objects
        self._executor = worker.flow.script.executor
        self._head = head
        self._inputs = parts["inputs"]
        self.parts = []

    def _arguments(self):
        inputs, self._inputs = json.loads(self._inputs), None
        if self._head.get("sample") and not inputs:
            inputs = load_inputs_from_sample(self._executor.prompty._sample)
        if self._head.get("batch"):
            OperationContext.set_instance(OperationContext.get_instance().copy())
            OperationContext.get_instance().run_mode = RunMode.Batch.name
        return {
            "inputs": inputs,
            "index": self._head["line"],
            "run_id": self._head["run_id"],
            "allow_generator_output": bool(self._head.get("stream")),
        }

    def sync(self):
        try:
            result = self._executor.exec_line(**self._arguments())
        except Exception:
            raise
        except BaseException as error:
            _refuse_exit(self._executor._func_name, error)
        return self._described(result)

    async def asynchronous(self):
        try:
            result = await self._executor.exec_line_async(**self._arguments())
        except Exception:
            raise
        except BaseException as error:
            _refuse_exit(self._executor._func_name, error)
        return self._described(result)

    def _described(self, result):
        """Returns (reply fields, parts)."""
        info = result.run_info
        self.parts.append(("inputs", values.any_record_json(info.inputs)))
        if info.api_calls:
            self.parts.append(("api_calls", values.any_record_json(info.api_calls)))
        self.parts.append(("system_metrics", json.dumps(info.system_metrics or {}, default=str).encode()))
        return ({"error": info.error}, []) if info.error is not None else self._output(result.output)

    def _output(self, output):
        primitive = not isinstance(output, dict) and not is_dataclass(output)
        fields, streams = convert_eager_flow_output_to_dict(output), {}
        for name, value in fields.items():
            if isinstance(value, (Iterator, AsyncIterator)):
                streams[name] = self._objects.describe(self._head["session"], value)[0]["ref"]
        if streams:
            fields = {k: None if k in streams else v for k, v in fields.items()}
        data = values.plain_json(fields)
        parts = [("value", values.any_record_json(fields) if data is None else data)]
        if data is None and self._head.get("keep"):
            with contextlib.suppress(Exception):  # what cannot be pickled passes as its JSON
                parts.append(("pickle", pickle.dumps(fields)))
        return {"primitive": primitive, "streams": streams}, parts


def aggregate(script, head, parts):
    """Runs __aggregate__ over the lines' outputs, which parts have as JSON, or pickled where JSON would change them. Prompt flow's
    executor hides why it fails. Returns (reply fields, parts)."""
    executor = script.executor
    pickles = {int(name.split()[1]): data for name, data in parts.items() if name.startswith("pickle ")}
    outputs = [pickle.loads(pickles[i]) if i in pickles else v for i, v in enumerate(json.loads(parts["outputs"]))]
    outputs = [o["output"] if alone else o for o, alone in zip(outputs, head["primitive"])]
    name = executor._aggr_func.__name__
    try:
        with executor._update_operation_context_for_aggregation(f"{head['run_id']}_reduce"):
            metrics = executor._aggr_func(**{executor._aggr_input_name: [AttrDict(o) if isinstance(o, dict) else o for o in outputs]})
    except Exception as error:
        _fail(name, error)
    except BaseException as error:
        _refuse_exit(name, error)
    if not isinstance(metrics, dict):
        print("The output of the aggregation function is not a dictionary: there are no metrics.", file=sys.stderr)
        metrics = {}
    return {}, [("metrics", values.any_record_json(metrics))]


def _refuse_exit(name, error):
    """What code raises beyond Exception (sys.exit, KeyboardInterrupt) fails its line like any other."""
    if is_cancellation(error):
        raise error
    _fail(name, error)


def _fail(name, error):
    raise ScriptExecutionError(
        message_format="Execution failure in '{func_name}': {error_type_and_message}",
        func_name=name,
        error_type_and_message=f"({error.__class__.__name__}) {error}",
        error=error,
    ) from error
