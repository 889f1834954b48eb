"""Whether a process that has loaded a flow may be forked from."""

import os
import stat
import threading

_before = None


def note():
    """Remember what is open before a flow is loaded."""
    global _before
    _before = _open_files()


def is_forkable():
    """A fork copies one thread only, and shares what is open: a flow that started threads, or opened more than files to read, on import is
    loaded anew in every worker instead."""
    if threading.active_count() > 1 or len(os.listdir("/proc/self/task")) > 1 or _before is None:
        return False
    return all(_before.get(fd) == what or _is_harmless(fd) for fd, what in _open_files().items())


def _open_files():
    """What is open, by descriptor: these are used again."""
    files = {}
    for name in os.listdir("/proc/self/fd"):
        try:
            files[int(name)] = os.readlink(f"/proc/self/fd/{name}")
        except OSError:  # it listed the folder, and is closed
            pass
    return files


def _is_harmless(fd):
    try:
        mode = os.fstat(fd).st_mode
        with open(f"/proc/self/fdinfo/{fd}") as info:
            flags = next(int(line.split()[1], 8) for line in info if line.startswith("flags:"))
    except (OSError, StopIteration):
        return True  # it is closed again
    return (stat.S_ISREG(mode) or stat.S_ISDIR(mode)) and flags & os.O_ACCMODE == os.O_RDONLY or stat.S_ISCHR(mode)
