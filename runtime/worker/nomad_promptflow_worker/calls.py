"""Runs the runtime's requests: sync ones in threads, async ones on one event loop, each in a context of its own."""

import asyncio
import contextvars
import ctypes
import json
import queue
import threading
import time

from promptflow._core._errors import ToolCanceledError, ToolExecutionError
from promptflow._core.flow_execution_context import FlowExecutionContext
from promptflow.exceptions import ErrorTarget
from promptflow.tracing._openai_utils import OpenAIMetricsCalculator
from promptflow.tracing._tracer import Tracer

from . import media, output, values
from .flow import present
from .frames import TooLarge

_IDLE_SECONDS = 60


class Cancelled(BaseException):
    """Raised in a thread whose request was cancelled. Not an Exception: tools that catch those must not catch this."""


class Job:
    """One request. run() may be interrupted by Cancelled at any point and is then called again."""

    def __init__(self, worker, number, body, extra=()):
        self.worker, self.number, self.body = worker, number, body
        self.extra = extra  # parts that go with any outcome
        self.record = output.Record()
        self.lock = threading.Lock()
        self.thread = None  # of a sync job, while its body runs
        self.task = None  # of an async job
        self.cancelled = False
        self.stream = None  # of a job that sends items
        self.outcome = None
        self.started = time.time()
        self.clock = time.perf_counter()

    def cancel(self):
        with self.lock:
            if self.cancelled or self.outcome is not None:
                return
            self.cancelled = True
            if self.thread is not None:
                ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(self.thread), ctypes.py_object(Cancelled))
            elif self.task is not None:
                self.worker.loop.call_soon_threadsafe(self.task.cancel)
        if self.stream is not None:
            self.stream.stop()

    def without_interruption(self, do):
        """Do something in a sync job that Cancelled must not cut in the middle."""
        thread = threading.get_ident()
        with self.lock:
            if self.cancelled:
                raise Cancelled
            was, self.thread = self.thread, None
        do()
        with self.lock:
            if self.cancelled:
                raise Cancelled
            self.thread = thread if was is not None else None

    def run(self):
        """The sync job, in its thread."""
        try:
            self._run_body()
        except BaseException as error:
            self._settle(None, error)

    def _run_body(self):
        with self.lock:
            if self.cancelled:
                raise Cancelled
            self.thread = threading.get_ident()
        output.current.set(self.record)
        self._settle(self.body(), None)

    async def run_async(self):
        output.current.set(self.record)
        try:
            with self.lock:
                if self.cancelled:
                    raise Cancelled
                self.task = asyncio.current_task()
            self._settle(await self.body(), None)
        except BaseException as error:
            self._settle(None, error)
        self.finish()

    def _settle(self, result, error):
        with self.lock:
            if self.outcome is None:
                self.outcome = (result, error)
            self.thread = self.task = None

    def finish(self):
        """Answer. Nothing interrupts this: the outcome is set, so cancel does nothing any more."""
        self.worker.jobs.pop(self.number, None)
        self.record.open = False
        output.current.set(None)
        result, error = self.outcome
        head = {"id": self.number, "started": self.started, "duration": time.perf_counter() - self.clock}
        parts = []
        try:
            if error is None:
                fields, parts = result
                head.update(fields)
            else:
                head["error"] = present(as_failure(error))
        except BaseException as broken:  # an exception whose __str__ raises
            head["error"] = present(RuntimeError(f"{type(error).__name__}, whose text raised {type(broken).__name__}"))
        parts = [*parts, *self.extra]
        self._add_record(head, parts)
        self._answer(head, parts)

    def _add_record(self, head, parts):
        record = self.record
        if record.stdout:
            head["stdout"] = "".join(record.stdout)
        if record.stderr:
            head["stderr"] = "".join(record.stderr)
        if record.metrics:
            parts.append(("metrics", _metrics_json(record.metrics)))

    def _answer(self, head, parts):
        try:
            self.worker.connection.write(head, parts)
        except TooLarge as error:
            self.worker.connection.write({"id": self.number, "error": present(_too_large(error))})
        except OSError:
            pass  # the runtime is gone; the reader ends the worker


def _metrics_json(metrics):
    """Metrics may be anything: what JSON cannot hold is shown by its repr."""
    pairs = (json.dumps(str(key)).encode() + b":" + values.any_record_json(value) for key, value in metrics.items())
    return b"{" + b",".join(pairs) + b"}"


def _too_large(error):
    from promptflow.exceptions import UserErrorException

    return UserErrorException(f"The result is too large: {error}. Return less, or a path to a file.", target=ErrorTarget.EXECUTOR)


def is_cancellation(error):
    return isinstance(error, (Cancelled, asyncio.CancelledError))


def as_failure(error):
    """Prompt flow's own wording for a cancelled tool (RunTracker._enrich_run_info_with_exception)."""
    if is_cancellation(error):
        return ToolCanceledError(
            message_format="Tool execution is canceled because: {msg}.", msg="Received cancel request.".rstrip("."), target=ErrorTarget.EXECUTOR
        )
    if isinstance(error, TooLarge):
        return _too_large(error)
    return error


class Stream:
    """The items of an iterator on their way to the runtime, which takes so many and then says when it takes more: whoever reads slowly
    holds the iterator up instead of filling memory."""

    def __init__(self, worker, iterator, room):
        self.worker, self.iterator = worker, iterator
        self.job = None
        self.is_async = hasattr(iterator, "__anext__")
        self._room = room
        self._changed = threading.Condition()
        self._loop_changed = None  # of an async iterator
        self._over = False

    def grant(self, count):
        """There is room for count more items."""
        with self._changed:
            self._room += count
            self._changed.notify()
        self._wake_loop()

    def stop(self):
        """Nobody waits for room any more."""
        with self._changed:
            self._over = True
            self._changed.notify()
        self._wake_loop()

    def _wake_loop(self):
        if self._loop_changed is not None:
            self.worker.loop.call_soon_threadsafe(self._loop_changed.set)

    def sync(self):
        try:
            for item in self.iterator:
                with self._changed:
                    self._changed.wait_for(lambda: self._room > 0 or self._over)
                    self._room -= 1
                self._send(item)
        except BaseException:
            close = getattr(self.iterator, "close", None)
            if close is not None:  # a generator frees what it holds now, not when its session ends
                close()
            raise
        return {}, []

    async def asynchronous(self):
        self._loop_changed = asyncio.Event()
        try:
            async for item in self.iterator:
                while not self._take():
                    self._loop_changed.clear()
                    if self._room > 0 or self._over:
                        continue
                    await self._loop_changed.wait()
                self._send(item)
        except BaseException:
            close = getattr(self.iterator, "aclose", None)
            if close is not None:
                await close()
            raise
        return {}, []

    def _take(self):
        with self._changed:
            if self._room <= 0 and not self._over:
                return False
            self._room -= 1
            return True

    def _send(self, item):
        if self._over:
            raise Cancelled
        data = values.item_json(item)
        self.job.without_interruption(lambda: self.worker.connection.write({"id": self.job.number, "chunk": True}, [("value", data)]))


class ToolCall:
    """A call of a node's tool, as FlowExecutionContext.invoke_tool makes it."""

    def __init__(self, worker, head, parts):
        self.worker = worker
        self.session = head["session"]
        self.tool = worker.flow.tools[head["node"]]
        self.refs = head.get("refs")
        self.stream = head.get("stream")  # whether a tool with a parameter for it is to stream; None: as the flow says
        self.hidden = head.get("hidden")
        self.inputs = parts["inputs"]
        self.media = head.get("media")
        self.received = parts if self.media else None
        self.parts = []
        line = head["line"]
        self.run_id = f"{head['run_id']}_{self.tool.node.name}_{'reduce' if self.tool.node.aggregation else line}"
        self.context = FlowExecutionContext(self.tool.node.name, None, worker.cache, head["run_id"], head["run_id"], line)

    def sync(self):
        arguments = self._arguments()
        Tracer.start_tracing(self.run_id, self.tool.node.name)
        try:
            result = self.context._invoke_tool_inner(self.tool.node, self.tool.function, arguments)
        except Exception:
            raise
        except BaseException as error:
            self._refuse_exit(error)
        finally:
            self._end_tracing()
        return self.worker.objects.describe(self.session, result)

    async def asynchronous(self):
        arguments = self._arguments()
        Tracer.start_tracing(self.run_id, self.tool.node.name)
        try:
            result = await self.context._invoke_tool_async_inner(self.tool.node, self.tool.function, arguments)
        except Exception:
            raise
        except BaseException as error:
            self._refuse_exit(error)
        finally:
            self._end_tracing()
        return self.worker.objects.describe(self.session, result)

    def _refuse_exit(self, error):
        """What a tool raises beyond Exception (sys.exit, KeyboardInterrupt) is a failed call like any other."""
        if is_cancellation(error):
            raise error
        raise ToolExecutionError(node_name=self.tool.node.name, module=self.tool.module) from error

    def _arguments(self):
        inputs = json.loads(self.inputs)
        self.inputs = None
        if self.media:
            media.place(inputs, self.media, self.received)
            self.received = None
        if self.refs:
            resolved = self.worker.objects.place(self.session, inputs, self.refs)
            if resolved:
                records = {name: values.any_record_json(value).decode() for name, value in resolved}
                self.parts.append(("inputs", json.dumps(records).encode()))
        if self.hidden:
            inputs.update({name: _prompt_result(inputs[name], *hidden) for name, hidden in self.hidden.items()})
        arguments = self.tool.arguments(inputs)
        if self.stream is not None and self.tool.streaming_option:  # FlowExecutor.enable_streaming_for_llm_flow
            arguments[self.tool.streaming_option] = self.stream
        return arguments

    def _end_tracing(self):
        traces = Tracer.end_tracing(self.run_id)
        if not traces:
            return
        self.parts.append(("api_calls", values.any_record_json(traces)))
        calculator, total = OpenAIMetricsCalculator(), {}
        for trace in traces:
            calculator.merge_metrics_dict(total, calculator.get_openai_metrics_from_api_call(trace))
        if total:
            self.parts.append(("system_metrics", json.dumps(total, default=str).encode()))


def _prompt_result(text, hidden_text, words):
    """What promptflow-tools' prompt node gives."""
    from promptflow.tools.common import PromptResult

    result = PromptResult(text)
    result.set_escape_string(hidden_text)
    result.set_escape_mapping(dict(words or ()))
    return result


class Threads:
    """A thread pool that grows on demand: a waiting request never waits behind a sleeping one while there may be more threads."""

    def __init__(self, limit):
        self._limit = limit
        self._queue = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._count = 0
        self._idle = 0  # threads without work, less requests without a thread

    def submit(self, job):
        """Raises RuntimeError when not one thread can be had."""
        with self._lock:
            self._idle -= 1
            grow = self._idle < 0 and self._count < self._limit
            if grow:
                self._idle += 1
                self._count += 1
        if grow:
            self._spawn()
        self._queue.put(job)

    def _spawn(self):
        try:
            threading.Thread(target=self._loop, name="call", daemon=True).start()
        except RuntimeError:  # the machine's limit of threads: those there are go on
            with self._lock:
                self._count -= 1
                if self._count == 0:
                    raise
                self._idle -= 1

    def _loop(self):
        while True:
            job = self._next()
            if job is None:
                return
            _execute(job)
            job = None  # it would keep its values
            with self._lock:
                self._idle += 1

    def _next(self):
        while True:
            try:
                return self._queue.get(timeout=_IDLE_SECONDS)
            except queue.Empty:
                with self._lock:
                    if self._idle > 0:
                        self._idle -= 1
                        self._count -= 1
                        return None


def _execute(job):
    """Run a job to its answer. Cancelled may strike between any two steps, once; what it strikes is done again."""
    while True:
        try:
            if job.outcome is None:
                contextvars.copy_context().run(job.run)
            if job.cancelled:  # an exception asked for but not raised yet is called off
                ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(threading.get_ident()), None)
            break
        except Cancelled as error:
            job._settle(None, error)
    job.finish()
