"""What every flow needs, imported once."""

import importlib
import os
import sys
import types

# The umbrella package's attributes (promptflow/__init__.py) and where they live.
_CORE = ("tool", "ToolProvider", "log_metric", "log_flow_metric")
_CLIENT = ("PFClient", "load_flow", "load_run")


def run():
    """Import prompt flow; returns the versions for the runtime's log."""
    _install_umbrella()
    for name in ("asyncio", "concurrent.futures", "jinja2", "jinja2.sandbox", "jinja2.meta", "promptflow.core", "promptflow.connections",
                 "promptflow.contracts.multimedia", "promptflow.executor.flow_executor"):
        importlib.import_module(name)
    # Not promptflow.tools: it imports the development kit, whose telemetry starts threads. Workers that need it import it.
    for name in ("calls", "check", "connections", "flow", "forkable", "media", "output", "render", "script", "values", "worker"):
        importlib.import_module(f"nomad_promptflow_worker.{name}")
    _warm()
    return {"python": sys.version.split()[0], "promptflow": _version()}


def _install_umbrella():
    """Stand in for promptflow/__init__.py.

    The package of that name from "pip install promptflow" imports the whole development kit, with threads that do not survive
    a fork, and without it "from promptflow import tool" fails. So its names are resolved here when they are asked for.
    """
    paths = [os.path.join(p, "promptflow") for p in sys.path if os.path.isdir(os.path.join(p, "promptflow"))]
    if not paths:
        raise ModuleNotFoundError("No module named 'promptflow'", name="promptflow")
    package = types.ModuleType("promptflow")
    package.__path__ = paths
    package.__getattr__ = _umbrella_attribute
    sys.modules["promptflow"] = package


def _umbrella_attribute(name):
    if name in _CORE:
        return getattr(importlib.import_module("promptflow.core"), name)
    if name in _CLIENT:
        return getattr(importlib.import_module("promptflow.client"), name)
    if name in ("__version__", "VERSION"):
        return _version()
    raise AttributeError(f"module 'promptflow' has no attribute {name!r}")


def _version():
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("promptflow-core")
    except PackageNotFoundError:
        return "unknown"


def _warm():
    """Run what imports lazily, so that no worker does it again."""
    import inspect

    from promptflow._core.tool import tool
    from promptflow._utils.tool_utils import function_to_interface

    from . import render

    render.render("{{ a }}{% for b in c %}{{ b | upper }}{% endfor %}", {"a": 1, "c": "x"})
    render.variables("{{ a }}")

    def probe(a: int, b: str = "x") -> str:
        return b

    function_to_interface(tool(probe))
    inspect.signature(probe)
