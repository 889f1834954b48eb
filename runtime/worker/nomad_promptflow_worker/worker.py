"""A worker: binds to one flow, then serves requests until the runtime closes its socket, or is forked from to have more of it."""

import asyncio
import fcntl
import gc
import json
import os
import signal
import sys
import threading
import traceback

from promptflow._core.cache_manager import DummyCacheManager
from promptflow.executor._input_assignment_parser import parse_node_property
from promptflow.tracing._integrations._openai_injector import inject_openai_api
from promptflow.tracing._utils import is_tracing_disabled

from . import forkable, media, output, render, script, zygote
from .calls import Job, Stream, Threads, ToolCall
from .check import Check
from .flow import Flow, present
from .frames import Connection
from .values import Objects


def run(sock, forks, tie_fd):
    """The life of a process forked from the zygote. forks is the socket on which it may be asked to fork in turn."""
    settle(tie_fd)
    worker = Worker(Connection(sock))
    if worker.serve() != TEMPLATE:
        return
    gc.collect()
    gc.freeze()  # what the flow imported is not garbage either
    zygote.serve_forks(forks, lambda sock, forks: _resume(worker, sock, tie_fd))


def _resume(worker, sock, tie_fd):
    """The life of a worker forked from a process that has loaded its flow."""
    settle(tie_fd)
    worker.connection.close()
    worker.connection = Connection(sock, worker.connection.limit)
    worker.serve()


TEMPLATE = object()  # what serve returns for a process that is to be forked from


def settle(tie_fd):
    """What every process of a flow does first."""
    os.setpgid(0, 0)  # what tools start can be ended with the worker
    vars(sys.modules["__main__"]).pop("__file__", None)  # multiprocessing's spawned children would run it
    _tie_to_runtime(tie_fd)
    _prefer_for_oom()


def _tie_to_runtime(tie_fd):
    """Have the kernel kill this process when the runtime ends, even while native code holds the interpreter lock.

    The runtime holds the write end of a pipe; closing it signals the owner of an asynchronous read end. Where that is not to
    be had the end of the socket has to do.
    """
    try:
        # Opened anew: the owner belongs to the open file, which a fork would share.
        own = os.open(f"/proc/self/fd/{tie_fd}", os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        fcntl.fcntl(own, fcntl.F_SETSIG, signal.SIGKILL)
        fcntl.fcntl(own, fcntl.F_SETOWN, os.getpid())
        fcntl.fcntl(own, fcntl.F_SETFL, fcntl.fcntl(own, fcntl.F_GETFL) | os.O_ASYNC)
    except (OSError, AttributeError):
        pass


def _prefer_for_oom():
    """When memory runs out a worker has to go, not the runtime."""
    try:
        with open("/proc/self/oom_score_adj", "r+") as file:
            score = int(file.read())
            file.seek(0)
            file.write(str(min(score + 300, 1000)))
    except (OSError, ValueError):
        pass


class Worker:
    """Requests are read by the main thread, which runs none of the flow's code after loading it."""

    def __init__(self, connection):
        self.connection = connection
        self.objects = Objects()
        self.jobs = {}
        self.flow = None
        self.cache = DummyCacheManager()
        self.threads = None
        self.loop = None
        self.tasks = set()

    def serve(self):
        while True:
            message = self.connection.read()
            if message is None:
                return None
            head, parts = message
            if head["op"] == "template":
                return TEMPLATE
            try:
                getattr(self, "_" + head["op"])(head, parts)
            except Exception as error:  # such as no more threads
                traceback.print_exc()
                if "id" in head:
                    self.jobs.pop(head["id"], None)
                    self.connection.write({"id": head["id"], "error": present(error)})

    # Requests without an answer.

    def _cancel(self, head, parts):
        job = self.jobs.get(head["target"])
        if job is not None:
            job.cancel()

    def _grant(self, head, parts):
        job = self.jobs.get(head["target"])
        if job is not None:
            job.stream.grant(head["count"])

    def _release(self, head, parts):
        self.objects.release(head["session"])

    # Loading.

    def _bind(self, head, parts):
        self.connection.limit = head["max_frame"]
        self.threads = Threads(head["threads"])
        media.texts_cross = (head["message_format"] or "").lower() == "openai-vision"
        reply = {"id": head["id"]}
        forkable.note()
        try:
            flow = Flow(head["dir"], head["env"], json.loads(parts["connections"]), head["message_format"])
            if not is_tracing_disabled():
                inject_openai_api()  # as the executor does before a run; it wraps the client's methods
            flow.import_modules(head.get("modules") or ())
            loaded = [("tools", json.dumps(flow.load(json.loads(parts["nodes"]))).encode())]
            if "script" in head:
                flow.load_script({**head["script"], "init": json.loads(parts["init"])})
            self.flow = flow
            output.install(flow.secrets())  # after loading: handlers made on import keep the real streams, as in prompt flow
            reply["forkable"] = forkable.is_forkable()
            self.connection.write(reply, loaded)
        except Exception as error:
            reply["error"] = present(error)
            self.connection.write(reply)

    def _start(self, head, parts):
        """The last step before requests, in the worker itself: what the flow's own objects hold open is not shared by a fork."""
        reply, described = {"id": head["id"]}, []
        try:
            if self.flow.script is not None:
                described.append(("script", json.dumps(self.flow.start_script()).encode()))
        except Exception as error:
            reply["error"] = present(error)
        self.connection.write(reply, described)

    # Validation, which this process does instead of serving a flow.

    def _check(self, head, parts):
        check = Check(head, parts)
        self.connection.write({"id": head["id"]}, [("results", json.dumps(check.run()).encode())])
        if head["warm"] and not check.warm():
            os._exit(0)  # a process with threads is no good to fork from

    # Requests that run in a thread or on the loop.

    def _call(self, head, parts):
        call = ToolCall(self, head, parts)
        if call.tool.is_async:
            self._submit_async(head, call.asynchronous, call.parts)
        else:
            self._submit(head, call.sync, call.parts)

    def _line(self, head, parts):
        line = script.Line(self, head, parts)
        if self.flow.script.is_async:
            self._submit_async(head, line.asynchronous, line.parts)
        else:
            self._submit(head, line.sync, line.parts)

    def _aggregate(self, head, parts):
        self._submit(head, lambda: script.aggregate(self.flow.script, head, parts))

    def _property(self, head, parts):
        def body():
            value = self.objects.get(head["session"], head["ref"])
            return self.objects.describe(head["session"], parse_node_property(head["node"], value, head["property"]))

        self._submit(head, body)

    def _inputs(self, head, parts):
        inputs = json.loads(parts["inputs"])
        media.place(inputs, head.get("media") or (), parts)
        self.objects.place(head["session"], inputs, head.get("refs") or ())
        return inputs

    def _equal(self, head, parts):
        def body():
            inputs = self._inputs(head, parts)
            value = self.objects.get(head["session"], head["ref"])
            return self.objects.describe(head["session"], bool(value == inputs["value"]))

        self._submit(head, body)

    def _render(self, head, parts):
        def body():
            inputs = self._inputs(head, parts)
            if head.get("chat_lists"):
                inputs = render.chat_lists(inputs)
            return self.objects.describe(head["session"], render.render(json.loads(parts["template"]), inputs))

        self._submit(head, body)

    def _variables(self, head, parts):
        self._submit(head, lambda: self.objects.describe(head["session"], render.variables(json.loads(parts["template"]))))

    def _join(self, head, parts):
        try:
            stream = self.objects.get(head["session"], head["ref"])
        except LookupError as error:
            self.connection.write({"id": head["id"], "error": present(error)})
            return
        if hasattr(stream, "__anext__"):

            async def body():
                return self.objects.describe(head["session"], "".join([str(item) async for item in stream]))

            self._submit_async(head, body)
        else:
            self._submit(head, lambda: self.objects.describe(head["session"], "".join(str(item) for item in stream)))

    def _stream(self, head, parts):
        try:
            iterator = self.objects.get(head["session"], head["ref"])
        except LookupError as error:
            self.connection.write({"id": head["id"], "error": present(error)})
            return
        stream = Stream(self, iterator, head["room"])
        if stream.is_async:
            self._submit_async(head, stream.asynchronous, stream=stream)
        else:
            self._submit(head, stream.sync, stream=stream)

    def _submit(self, head, body, extra=(), stream=None):
        self.threads.submit(self._job(head, body, extra, stream))

    def _job(self, head, body, extra, stream):
        job = Job(self, head["id"], body, extra)
        if stream is not None:
            job.stream, stream.job = stream, job
        self.jobs[head["id"]] = job
        return job

    def _submit_async(self, head, body, extra=(), stream=None):
        if self.loop is None:
            self.loop = asyncio.new_event_loop()
            threading.Thread(target=self._run_loop, name="async calls", daemon=True).start()
        self.loop.call_soon_threadsafe(self._start_task, self._job(head, body, extra, stream))

    def _run_loop(self):
        asyncio.set_event_loop(self.loop)
        while True:
            try:
                self.loop.run_forever()
            except BaseException:  # a task that a tool left behind may call sys.exit
                traceback.print_exc()

    def _start_task(self, job):
        task = self.loop.create_task(job.run_async())
        self.tasks.add(task)  # the loop itself holds tasks weakly
        task.add_done_callback(self.tasks.discard)
