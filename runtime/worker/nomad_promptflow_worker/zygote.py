"""The process that imports prompt flow and forks workers, and what it shares with the processes that a flow's workers are forked from
(template.py). A process that forks must stay single-threaded: a fork copies one thread only."""

import gc
import json
import os
import signal
import socket
import sys
import threading

MAX_EVENT = 64 << 10


def run(control_fd, tie_fd):
    """Serve until the runtime closes its end of the control socket."""
    control = socket.socket(fileno=control_fd)
    for fd in (control_fd, tie_fd):
        os.set_inheritable(fd, False)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if not _prepare(control):
        return
    serve_forks(control, lambda sock, forks: _begin(sock, forks, tie_fd))


def _begin(sock, forks, tie_fd):
    """The life of a worker."""
    gc.enable()
    from . import worker

    worker.run(sock, forks, tie_fd)


def serve_forks(control, begin):
    """Fork whenever asked to, until the runtime closes its end of the control socket. begin is the life of what is forked: it gets
    the socket of its requests, and one on which it may be asked to fork in turn."""
    wake_read, wake_write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.set_wakeup_fd(wake_write, warn_on_full_buffer=False)
    _serve(control, begin, wake_read, wake_write)


def _prepare(control):
    from . import preload

    gc.disable()  # nothing imported here is garbage, and a collection would dirty pages that workers share
    try:
        versions = preload.run()
    except BaseException as error:  # also SystemExit: an installation can be broken in any way
        missing = isinstance(error, ModuleNotFoundError) and (error.name or "").split(".")[0] == "promptflow"
        _say(control, ready=False, missing=missing, error=f"{type(error).__name__}: {error}"[:4096])
        return False
    if threading.active_count() > 1:
        names = ", ".join(t.name for t in threading.enumerate() if t is not threading.main_thread())
        print(f"promptflow worker: importing prompt flow started threads ({names}); forked workers lack them", file=sys.stderr)
    gc.freeze()
    _say(control, ready=True, **versions)
    return True


def _say(control, **event):
    try:
        control.send(json.dumps(event).encode())
    except OSError:
        os._exit(0)  # the runtime is gone


def _serve(control, begin, wake_read, wake_write):
    import select

    poll = select.poll()
    poll.register(control, select.POLLIN)
    poll.register(wake_read, select.POLLIN)
    while True:
        for fd, _ in poll.poll():
            if fd == wake_read:
                _drain(wake_read)
                _reap(control)
                continue
            message, fds, _, _ = socket.recv_fds(control, MAX_EVENT, 2)
            if not message:
                return
            request = json.loads(message)
            pid = _fork(fds)
            if pid == 0:
                _become_worker(control, begin, (wake_read, wake_write), fds)
            for fd in fds:
                os.close(fd)
            _say(control, forked=request["fork"], pid=pid)


def _fork(fds):
    for fd in fds:
        os.set_inheritable(fd, False)
    try:
        return os.fork()
    except OSError as error:
        print(f"promptflow worker: fork: {error}", file=sys.stderr)
        return -1


def _drain(fd):
    try:
        while os.read(fd, 512):
            pass
    except BlockingIOError:
        pass


def _reap(control):
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return
        if pid == 0:
            return
        _say(control, exited=pid, status=status)


def _become_worker(control, begin, wakes, fds):
    """Never returns."""
    status = 1
    try:
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        for unused in wakes:
            os.close(unused)
        control.close()
        begin(*(socket.socket(fileno=fd) for fd in fds))
        status = 0
    except BaseException:
        import traceback

        traceback.print_exc()
    finally:
        os._exit(status)
