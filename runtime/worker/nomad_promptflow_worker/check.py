"""Validates the Python parts of a flow: in a forked child, so that the process that stays never runs the flow's code.

What stays is warm: modules that the flow imports from outside its folder are imported here after a check, and the next child,
forked for the files that changed, finds them done. A child that crashes or hangs fails the job it was at; another goes on behind it.
"""

import ast
import builtins
import contextlib
import ctypes
import importlib
import inspect
import json
import os
import re
import select
import signal
import sys
import threading
import time
import types
from pathlib import Path

from promptflow.contracts.flow import Node
from promptflow.exceptions import PromptflowException

from .flow import Flow, Tool, _wrap, present

_PR_SET_PDEATHSIG = 1
_MAX_LINE = 64 << 20
_INPUT_ERRORS = ("NodeInputValidationError", "GetConnectionError")


class Check:
    """One request. Jobs are done in order; each gives one result."""

    def __init__(self, head, parts):
        self.directory = os.path.realpath(head["dir"])
        self.environment = head["env"]
        self.message_format = head["message_format"]
        self.timeout = head["timeout"]
        self.connections = json.loads(parts["connections"])
        self.jobs = json.loads(parts["jobs"])
        self.modules = []

    def run(self):
        """Returns the results, one for each job."""
        results = []
        while len(results) < len(self.jobs):
            child = Child(self, len(results))
            results.extend(child.results())
            if len(results) < len(self.jobs):
                results.append({"crash": child.fate})
        return results

    def warm(self):
        """Import what the flow took from outside. Returns False when that started threads, which a fork would lose."""
        sink = open(os.devnull, "w")
        with contextlib.redirect_stdout(sink), contextlib.redirect_stderr(sink):
            for name in self.modules:
                if name in sys.modules:
                    continue
                try:
                    importlib.import_module(name)
                except BaseException:  # the child has said so where it matters
                    pass
        return threading.active_count() == 1


class Child:
    """A fork that does jobs from the first one on and says a line for each."""

    def __init__(self, check, first):
        self._check = check
        self._first = first
        self.fate = "it ended without an answer"
        reader, writer = os.pipe()
        parent = os.getpid()
        self._pid = os.fork()
        if self._pid == 0:
            try:
                os.close(reader)
                _Jobs(check, writer, parent).run(first)
            finally:
                os._exit(0)
        os.close(writer)
        self._lines = _Lines(reader, check.timeout)

    def results(self):
        """The results until the end, or until the job that hung or crashed."""
        results = []
        late = False
        try:
            for line in self._lines:
                if "modules" in line:
                    self._check.modules.extend(line["modules"])
                else:
                    results.append(line)
        except TimeoutError:
            late = True
        finally:
            status = self._end(late)
        self.fate = f"it did not end within {self._check.timeout:g} seconds" if late else _describe(status)
        return results[: len(self._check.jobs) - self._first]

    def _end(self, late):
        """Returns how the child ended. What the flow's code started ends with it."""
        self._lines.close()
        if not late:
            self._wait()
        for kill in (os.killpg, os.kill):
            with contextlib.suppress(ProcessLookupError, PermissionError):
                kill(self._pid, signal.SIGKILL)
        return os.waitpid(self._pid, 0)[1]

    def _wait(self):
        """Let a child that has said everything end by itself; its threads may keep it from that."""
        with contextlib.suppress(ChildProcessError):
            for _ in range(100):
                if os.waitid(os.P_PID, self._pid, os.WEXITED | os.WNOHANG | os.WNOWAIT):
                    return
                time.sleep(0.001)


def _describe(status):
    if os.WIFSIGNALED(status):
        return f"it ended by signal {os.WTERMSIG(status)} ({signal.Signals(os.WTERMSIG(status)).name})"
    return f"it exited with status {os.WEXITSTATUS(status)}"


class _Lines:
    """JSON lines of a pipe; each must come within the timeout."""

    def __init__(self, fd, timeout):
        self._fd = fd
        self._timeout = timeout

    def __iter__(self):
        poll = select.poll()
        poll.register(self._fd, select.POLLIN)
        pending = bytearray()
        deadline = time.monotonic() + self._timeout
        while True:
            if not poll.poll(max(0, deadline - time.monotonic()) * 1000):
                raise TimeoutError
            data = os.read(self._fd, 1 << 20)
            if not data or len(pending) > _MAX_LINE:
                return
            pending += data
            *lines, rest = pending.split(b"\n")
            pending = bytearray(rest)
            for line in lines:
                deadline = time.monotonic() + self._timeout
                yield json.loads(line)

    def close(self):
        os.close(self._fd)


class _Jobs:
    """The child's side."""

    def __init__(self, check, out, parent):
        os.setpgid(0, 0)
        with contextlib.suppress(OSError, AttributeError):
            ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        if os.getppid() != parent:
            os._exit(1)
        null = os.open(os.devnull, os.O_RDWR)
        for fd in (0, 1, 2):
            os.dup2(null, fd)
        self._check = check
        self._out = os.fdopen(out, "wb")
        self._loader = None
        self._before = set(sys.modules)
        self._read = Files(check.directory)

    def run(self, first):
        sys.dont_write_bytecode = True
        for job in self._check.jobs[first:]:
            try:
                result = getattr(self, "_" + job["kind"])(job)
            except Exception as error:
                result = {"failure": f"{type(error).__name__}: {error}"}
            self._say(result)
            if threading.active_count() == 1:
                self._say({"modules": self._foreign_modules()})

    def _say(self, line):
        self._out.write(json.dumps(line, default=str, allow_nan=False).encode() + b"\n")
        self._out.flush()

    def _foreign_modules(self):
        """What was imported from outside the flow's folder since the last time."""
        new = [name for name in sys.modules if name not in self._before]
        self._before.update(new)
        return [name for name in new if not self._is_own(sys.modules[name])]

    def _is_own(self, module):
        file = getattr(module, "__file__", None)
        if not isinstance(file, str):
            return True  # namespace packages and what is made at run time cannot be told
        return self._read.relative(file) is not None

    # Templates.

    def _template(self, job):
        from jinja2 import Environment, nodes
        from jinja2.exceptions import TemplateSyntaxError

        from .render import variables

        text = job["text"]
        try:
            found = variables(text)
        except TemplateSyntaxError as error:
            return {"error": present(error), "class": type(error).__name__, "message": str(error), "line": error.lineno or 0}
        except Exception as error:
            return {"error": present(error), "class": type(error).__name__, "message": str(error), "line": 0}
        lines = {}
        for name in Environment().parse(text).find_all(nodes.Name):
            lines[name.name] = min(name.lineno, lines.get(name.name, name.lineno))
        source = text.split("\n")
        for variable in found:
            line = lines.get(variable["name"], 0)
            variable["line"] = line
            variable["column"] = _column(source, line, variable["name"])
        return {"variables": found}

    # Nodes.

    def _start(self):
        """Enter the flow: its folder, its variables, its imports."""
        if self._loader is None:
            check = self._check
            self._loader = Flow(check.directory, check.environment, check.connections, check.message_format)
            # A module of the same name that another import brought is not the flow's.
            for name in {p.stem for p in Path(check.directory).glob("*.py")} | {p.parent.name for p in Path(check.directory).glob("*/__init__.py")}:
                sys.modules.pop(name, None)
            self._read.watch()
        return self._loader

    def _node(self, job):
        loader = self._start()
        mapping = job["node"]
        name = str(mapping.get("name"))
        self._read.begin()
        try:
            node = Node.deserialize(mapping)
            resolver = loader._resolver([node])
            resolved = resolver.resolve_tool_by_node(node)
        except Exception as error:
            result = self._failed(name, mapping, error)
            if type(_innermost_own(error)).__name__ in _INPUT_ERRORS:
                with contextlib.suppress(Exception):  # what its other inputs are like
                    self._describe(result, resolver.resolve_tool_by_node(Node.deserialize(mapping), convert_input_types=False))
            return result
        except BaseException as error:  # sys.exit() on import
            return self._failed(name, mapping, _wrap(name, error))
        result = {"tool": {}, "files": self._files(mapping)}
        self._describe(result, resolved)
        return result

    def _describe(self, result, resolved):
        """Add what the node's tool takes; an error that the result has stays."""
        result["tool"] = {**Tool(resolved.node, resolved.callable).describe(), **result["tool"]}
        result["function"] = self._function(resolved.callable)
        definition = resolved.definition
        if definition is not None:
            result["inputs"] = {k: _definition(d) for k, d in (definition.inputs or {}).items()}
            result["init"] = sorted(resolved.init_args or {})

    def _files(self, mapping):
        source = (mapping.get("source") or {}).get("path")
        return self._read.since(source if isinstance(source, str) else "")

    def _failed(self, name, mapping, error):
        result = {"tool": {"node": name, "error": present(error)}, "files": self._files(mapping)}
        cause = _innermost(error)
        result["cause"] = {"class": type(cause).__name__, "message": str(cause)[:4096], "name": getattr(cause, "name", None) or ""}
        result["place"] = self._place(error)
        source = (mapping.get("source") or {}).get("path")
        if isinstance(source, str):
            result["outline"] = _outline(os.path.join(self._check.directory, source))
        return result

    def _place(self, error):
        """The deepest place in the flow's files that an error and its causes know."""
        found = None
        for error in _chain(error):
            if isinstance(error, SyntaxError) and self._read.relative(error.filename) is not None:
                found = {"file": self._read.relative(error.filename), "line": error.lineno or 1, "column": error.offset or 1}
                continue
            trace = error.__traceback__
            while trace is not None:
                relative = self._read.relative(trace.tb_frame.f_code.co_filename)
                if relative is not None:
                    found = {"file": relative, "line": trace.tb_lineno, "column": _trace_column(trace)}
                trace = trace.tb_next
        return found

    def _function(self, function):
        original = inspect.unwrap(getattr(function, "func", function))
        code = getattr(original, "__code__", None)
        relative = self._read.relative(code.co_filename) if code else None
        if relative is None:
            return None
        line = code.co_firstlineno
        with contextlib.suppress(Exception):
            for item in ast.walk(ast.parse(Path(self._check.directory, relative).read_text(encoding="utf-8"))):
                if isinstance(item, (ast.FunctionDef, ast.AsyncFunctionDef)) and item.name == original.__name__ and line in (
                    item.lineno, *(d.lineno for d in item.decorator_list),
                ):
                    line = item.lineno
        return {"file": relative, "line": line, "name": original.__name__}

    # Tool metadata, by prompt flow's own generator.

    def _meta(self, job):
        from promptflow._core.tool_meta_generator import generate_tool_meta

        self._start()
        tools, errors = generate_tool_meta(Path(self._check.directory), {job["source"]: {"tool_type": job["type"]}})
        if errors:
            return {"error": next(iter(errors.values()))}
        meta = next(iter(tools.values()))
        meta.pop("name")
        return {"meta": meta}

    def _packages(self, job):
        from promptflow._core.tools_manager import collect_package_tools

        return {"meta": collect_package_tools(keys=job["keys"])}

    # Requirements.

    def _requirements(self, job):
        return {"findings": [f for f in map(_requirement, job["lines"]) if f]}


class Files:
    """Tells which of the flow's files loading a node has read: its script, the modules that it and they import, and data."""

    def __init__(self, directory):
        self._directory = directory
        self._imports = {}  # file -> the flow's files that it imports
        self._opened = set()  # since begin
        self._came_with = {}  # file -> the data that was read with it the first time
        self._all = set()

    def relative(self, path):
        """The path below the flow's folder, None for one elsewhere."""
        if not isinstance(path, (str, bytes)):
            return None
        path = os.path.realpath(os.path.join(self._directory, os.fsdecode(path)))
        folder = self._directory + os.sep
        return path[len(folder) :] if path.startswith(folder) else None

    def watch(self):
        original = builtins.__import__

        def noting(name, globals=None, locals=None, fromlist=(), level=0):
            module = original(name, globals, locals, fromlist, level)
            importer = self.relative((globals or {}).get("__file__"))
            if importer is not None:
                self._note_import(importer, module, fromlist or ())
            return module

        builtins.__import__ = noting
        sys.addaudithook(self._note_open)

    def _note_open(self, event, arguments):
        if event == "open" and arguments:
            relative = self.relative(arguments[0])
            if relative is not None and not relative.endswith(".pyc"):
                self._opened.add(relative)

    def _note_import(self, importer, module, names):
        found = [module, *(getattr(module, n, None) for n in names)]
        prefix = module.__name__ + "."
        found.extend(m for n, m in list(sys.modules.items()) if n.startswith(prefix))
        for m in found:
            file = self.relative(getattr(m, "__file__", None)) if isinstance(m, types.ModuleType) else None
            if file is not None:
                self._imports.setdefault(importer, set()).add(file)

    def begin(self):
        self._opened = set()

    def since(self, source):
        """What was read since begin, and what of that had been read before."""
        self._all |= self._opened
        data = {f for f in self._opened if not f.endswith(".py")}
        for file in self._opened:
            self._came_with.setdefault(file, data)
        files = {os.path.normpath(source), *self._opened}
        left = list(files)
        while left:
            file = left.pop()
            if self._imports_unseen(file):
                return sorted(self._all)
            new = (self._imports.get(file, set()) | self._came_with.get(file, set())) - files
            files |= new
            left.extend(new)
        return sorted(files)

    def _imports_unseen(self, file):
        """Whether a script may import in ways that are not seen here, a second time."""
        if not file.endswith(".py"):
            return False
        with contextlib.suppress(OSError):
            text = Path(self._directory, file).read_bytes()
            return b"importlib" in text or b"__import__" in text or b"exec(" in text
        return False


def _chain(error):
    seen = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)


def _innermost_own(error):
    """The innermost of the causes that is prompt flow's."""
    found = error
    for cause in _chain(error):
        if isinstance(cause, PromptflowException):
            found = cause
    return found


def _innermost(error):
    *_, last = _chain(error)
    return last


def _trace_column(trace):
    """The column, from 1, where Python knows it (3.11)."""
    code = trace.tb_frame.f_code
    if not hasattr(code, "co_positions"):
        return 0
    with contextlib.suppress(Exception):
        _, _, column, _ = list(code.co_positions())[trace.tb_lasti // 2]
        return column + 1
    return 0


def _column(source, line, name):
    if not 1 <= line <= len(source):
        return 0
    match = re.search(rf"\b{re.escape(name)}\b", source[line - 1])
    return match.start() + 1 if match else 0


def _definition(definition):
    return {
        "type": [getattr(t, "value", t) for t in definition.type],
        "default": definition.default if isinstance(definition.default, (str, int, float, bool)) else None,
        "enum": definition.enum or [],
    }


def _outline(path):
    """The functions of a script that are marked as tools, by their text alone."""
    try:
        tree = ast.parse(Path(path).read_text(encoding="utf-8"))
    except Exception:
        return []
    found = []
    for item in ast.walk(tree):
        if isinstance(item, (ast.FunctionDef, ast.AsyncFunctionDef)):
            tool = any(_is_tool(d) for d in item.decorator_list)
            found.append({"name": item.name, "line": item.lineno, "column": item.col_offset + 1, "tool": tool})
    return sorted(found, key=lambda f: f["line"])


def _is_tool(decorator):
    if isinstance(decorator, ast.Call):
        decorator = decorator.func
    return getattr(decorator, "id", getattr(decorator, "attr", None)) == "tool"


def _requirement(entry):
    """What is wrong with one line of a requirements file, None when nothing is."""
    from importlib.metadata import PackageNotFoundError, version

    number, text = entry["line"], entry["text"]
    try:
        from packaging.requirements import InvalidRequirement, Requirement
    except ImportError:
        return None
    try:
        requirement = Requirement(text)
    except InvalidRequirement as error:
        return {"line": number, "kind": "invalid", "text": text, "detail": str(error).splitlines()[0]}
    if requirement.marker is not None and not requirement.marker.evaluate():
        return None
    try:
        installed = version(requirement.name)
    except PackageNotFoundError:
        return {"line": number, "kind": "missing", "name": requirement.name, "wanted": str(requirement.specifier)}
    if requirement.specifier and not requirement.specifier.contains(installed, prereleases=True):
        return {"line": number, "kind": "version", "name": requirement.name, "wanted": str(requirement.specifier), "installed": installed}
    return None
