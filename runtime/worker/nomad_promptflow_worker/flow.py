"""Loads a flow's nodes with prompt flow's own resolver."""

import inspect
import os
import sys
from pathlib import Path
from types import SimpleNamespace

from promptflow._core.tool import STREAMING_OPTION_PARAMETER_ATTR
from promptflow._core.tool_meta_generator import PythonLoadError
from promptflow._utils.exception_utils import ExceptionPresenter
from promptflow.contracts import flow as executable
from promptflow.contracts.flow import InputValueType, Node
from promptflow.contracts.tool import ToolType

from . import connections as connection_objects
from . import values

_NEED_TOOLS_PACKAGE = (ToolType.LLM, ToolType.CUSTOM_LLM, ToolType.PROMPT)
OMITTED = object()


def present(error):
    """An exception as prompt flow's run records have it."""
    shown = getattr(error, "error", None)
    if isinstance(shown, dict) and "code" in shown:
        return shown
    return ExceptionPresenter.create(error).to_dict(include_debug_info=True)


class Tool:
    """A node that can be called."""

    def __init__(self, node, function):
        self.node = node
        self.function = function
        self.is_async = inspect.iscoroutinefunction(function)
        self.module = getattr(getattr(function, "func", function), "__module__", None)
        # Arguments in the node's order; what is not a literal comes with the call.
        self.template = {k: v.value if v.value_type == InputValueType.LITERAL else OMITTED for k, v in node.inputs.items()}
        option = getattr(function, STREAMING_OPTION_PARAMETER_ATTR, None)
        self.streaming_option = option if option in inspect.signature(function).parameters else ""
        self.expected = frozenset(k for k, v in self.template.items() if v is OMITTED)

    def arguments(self, inputs):
        arguments = self.template.copy()
        arguments.update(inputs)
        if not inputs.keys() >= self.expected:
            arguments = {k: v for k, v in arguments.items() if v is not OMITTED}
        return arguments

    def describe(self):
        parameters = inspect.signature(self.function).parameters
        original = inspect.unwrap(getattr(self.function, "func", self.function))
        return {
            "node": self.node.name,
            "async": self.is_async,
            "generator": inspect.isgeneratorfunction(original) or inspect.isasyncgenfunction(original),
            "kwargs": any(p.kind is p.VAR_KEYWORD for p in parameters.values()),
            "streaming_option": self.streaming_option,
            "parameters": [
                {"name": name, "has_default": p.default is not p.empty}
                for name, p in parameters.items()
                if p.kind not in (p.VAR_KEYWORD, p.VAR_POSITIONAL)
            ],
            "inputs": [
                {"name": name, "literal": value is not OMITTED, "record": "" if value is OMITTED else _record(value)}
                for name, value in self.template.items()
            ],
        }


def _record(value):
    return values.any_record_json(value).decode()


class Flow:
    """The nodes of one flow. Loading runs the flow's code."""

    def __init__(self, directory, environment, connections, message_format):
        os.environ.update(environment)
        os.chdir(directory)
        sys.path.insert(0, directory)
        self._directory = Path(directory)
        self._connections = connections
        self._provider = connection_objects.Provider(connections)
        connection_objects.install(self._provider)
        self._message_format = message_format or "basic"
        self.tools = {}
        self.script = None

    def secrets(self):
        """The connections' secrets, which logs must not show."""
        found = []
        for connection in self._connections.values():
            content = connection.get("value") or {}
            keys = set(connection.get("secret_keys") or ()) | {"api_key"}
            found.extend(content[k] for k in keys if isinstance(content, dict) and content.get(k))
        return found

    def import_modules(self, pairs):
        """Imports what nodes ask for, as Flow.deserialize does."""
        executable.Flow._import_requisites([], [SimpleNamespace(name=name, module=module) for name, module in pairs])

    def load(self, mappings):
        """Returns what the runtime is told of every node; a node's error does not keep the others from loading."""
        nodes, described = [], []
        for mapping in mappings:
            try:
                nodes.append(Node.deserialize(mapping))
            except BaseException as error:
                nodes.append(_failed(mapping.get("name"), error))
        try:
            resolver = self._resolver([n for n in nodes if isinstance(n, Node)])
        except Exception as error:
            return [_failed(m.get("name"), error) for m in mappings]
        for node in nodes:
            described.append(node if isinstance(node, dict) else self._load_node(resolver, node))
        return described

    def _load_node(self, resolver, node):
        try:
            resolved = resolver.resolve_tool_by_node(node)
            tool = Tool(resolved.node, resolved.callable)
            self.tools[node.name] = tool
            return tool.describe()
        except Exception as error:
            return _failed(node.name, error)
        except BaseException as error:  # sys.exit() on import must not take the worker along
            return _failed(node.name, _wrap(node.name, error))

    def load_script(self, spec):
        """Imports a flex flow's code; start_script does the rest."""
        from .script import Script

        self.script = Script(str(self._directory), spec, self._provider)
        _without_exit(spec["file"], self.script.load)

    def start_script(self):
        """Makes the flow's own object; returns what the runtime is told of the flow."""
        _without_exit(self.script.file.name, self.script.start)
        return self.script.describe()

    def _resolver(self, nodes):
        from promptflow.executor._tool_resolver import ToolResolver

        keys = [n.source.tool for n in nodes if n.source and n.source.tool]
        with _without_tools_package(keys, nodes):
            return ToolResolver(self._directory, self._provider, keys, message_format=self._message_format)


def _wrap(name, cause):
    from promptflow.executor._errors import ResolveToolError

    try:
        raise ResolveToolError(node_name=name) from cause
    except ResolveToolError as error:
        return error


def _failed(name, error):
    return {"node": str(name), "parameters": [], "inputs": [], "error": present(error)}


def _without_exit(file, step):
    """sys.exit() in a flow's code must not take the worker along."""
    try:
        step()
    except Exception:
        raise
    except BaseException as error:
        raise PythonLoadError(
            message_format="Failed to load python module for {entry_file}: {error_type_and_message}",
            entry_file=file,
            error_type_and_message=f"({error.__class__.__name__}) {error}",
        ) from error


class _without_tools_package:
    """Keeps the resolver from importing promptflow.tools, which it tries for LLM nodes' sake, when no node needs it: that
    imports an LLM client, and the development kit where that is installed."""

    def __init__(self, keys, nodes):
        needed = keys or any(n.type in _NEED_TOOLS_PACKAGE for n in nodes)
        self._hide = not needed and "promptflow.tools" not in sys.modules

    def __enter__(self):
        if self._hide:
            sys.modules["promptflow.tools"] = None

    def __exit__(self, *_):
        if self._hide:
            del sys.modules["promptflow.tools"]
