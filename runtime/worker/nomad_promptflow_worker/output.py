"""What tools print and which metrics they log, kept apart by call.

The routing is by context variable: threads of a pool with context and asyncio tasks inherit their call's, as in prompt flow.
"""

import sys
from contextvars import ContextVar
from datetime import datetime, timezone
from io import TextIOBase

from promptflow._core.metric_logger import add_metric_logger
from promptflow._utils.credential_scrubber import CredentialScrubber

current = ContextVar("nomad_promptflow_call", default=None)

_FORMAT = "%Y-%m-%dT%H:%M:%S%z"
_scrubber = CredentialScrubber()
_secrets = ()


class Record:
    """What one call printed and logged. Once closed it takes nothing more: a thread left behind may print for ever."""

    __slots__ = ("stdout", "stderr", "metrics", "open")

    def __init__(self):
        self.stdout, self.stderr = [], []
        self.metrics = {}
        self.open = True


def install(secrets):
    """Route stdout, stderr and log_metric. secrets never appear in what is kept."""
    global _secrets
    _secrets = tuple(s for s in secrets if isinstance(s, str) and len(s) > CredentialScrubber.LENGTH_THRESHOLD)
    sys.stdout = Router(sys.stdout, "stdout")
    sys.stderr = Router(sys.stderr, "stderr")
    add_metric_logger(_log_metric)


def _log_metric(key, value, variant_id=None):
    record = current.get()
    if record is not None and record.open:
        record.metrics[key] = value


def scrub(text):
    """Prompt flow's scrub_credentials; its regular expressions are tried only where they can match."""
    lower = text.lower()
    if "sig=" in lower or "key=" in lower:
        text = _scrubber.scrub(text)
    for secret in _secrets:
        text = text.replace(secret, CredentialScrubber.PLACE_HOLDER)
    return text


class Router(TextIOBase):
    """Like prompt flow's NodeLogWriter: a timestamp before every write but a bare line break."""

    def __init__(self, previous, name):
        self._previous = previous
        self._name = name

    def write(self, text):
        text = scrub(text)
        record = current.get()
        if record is None:
            self._previous.write(text)
            return
        if not record.open:
            return
        if text != "\n":
            text = f"[{datetime.now(timezone.utc).strftime(_FORMAT)}] {text}"
        getattr(record, self._name).append(text)

    def flush(self):
        if current.get() is None:
            self._previous.flush()
