"""Which values cross to the runtime as JSON, and how the others are described."""

import itertools
import json
from collections.abc import AsyncIterator, Iterator

from promptflow._utils.utils import default_json_encoder
from promptflow.contracts.multimedia import Image
from promptflow.contracts.tool import ConnectionType

from . import media

_SCALARS = frozenset((type(None), bool, int, float, str))
_STR = frozenset((str,))
_MAX_DEPTH = 300  # well below the recursion limit here and the reader's bound there
_MAX_REPR = 1024

_encode = json.JSONEncoder(ensure_ascii=False, check_circular=False, separators=(",", ":")).encode
_encode_ascii = json.JSONEncoder(check_circular=False, separators=(",", ":")).encode


def _record_default(value):
    """Records show an image by its name, as prompt flow's do that are not written to files."""
    return str(value) if isinstance(value, Image) else default_json_encoder(value)


_encode_record = json.JSONEncoder(ensure_ascii=False, default=_record_default, separators=(",", ":")).encode
_encode_record_ascii = json.JSONEncoder(default=_record_default, separators=(",", ":")).encode


def is_plain(value, depth=0):
    """Whether value is JSON data of exact types all through: what comes back from JSON is the same."""
    kind = type(value)
    if kind in _SCALARS:
        return True
    if kind is list:
        items = value
    elif kind is dict:
        if not _STR.issuperset(map(type, value)):
            return False
        items = value.values()
    else:
        return False
    if _SCALARS.issuperset(map(type, items)):
        return True
    if depth == _MAX_DEPTH:  # or a list in itself
        return False
    for item in items:
        if type(item) not in _SCALARS and not is_plain(item, depth + 1):
            return False
    return True


def _bytes(encode, encode_ascii, value):
    try:
        return encode(value).encode()
    except UnicodeEncodeError:  # lone surrogates cross as escapes
        return encode_ascii(value).encode("ascii")


def plain_json(value):
    """JSON of a plain value, None when it is not plain."""
    if not is_plain(value):
        return None
    try:
        return _bytes(_encode, _encode_ascii, value)
    except (ValueError, RecursionError):  # an int of more digits than Python writes
        return None


def record_json(value):
    """JSON of value as run records hold it (RunTracker._ensure_serializable_value), None when they hold its repr."""
    if ConnectionType.is_connection_value(value):
        return _bytes(_encode, _encode_ascii, ConnectionType.serialize_conn(value))
    if isinstance(value, (Iterator, AsyncIterator)):
        return None
    try:
        return _bytes(_encode_record, _encode_record_ascii, value)
    except Exception:
        return None


def any_record_json(value):
    """JSON for a run record in any case: the record, or the repr as a string."""
    data = record_json(value)
    return _bytes(_encode, _encode_ascii, safe_repr(value)) if data is None else data


def item_json(item):
    """JSON of a stream's item: what is no JSON is its text."""
    data = plain_json(item)
    return _bytes(_encode, _encode_ascii, str(item)) if data is None else data


def safe_repr(value, limit=None):
    """The text that stands for a value that has no record; a __repr__ may raise anything."""
    try:
        text = str(value) if isinstance(value, (Iterator, AsyncIterator)) else repr(value)
    except Exception as error:
        text = f"<{type(value).__name__} object, repr raised {type(error).__name__}>"
    return text if limit is None or len(text) <= limit else text[:limit]


def type_name(value):
    kind = type(value)
    module = getattr(kind, "__module__", None)
    return kind.__qualname__ if module in (None, "builtins") else f"{module}.{kind.__qualname__}"


def _with_media(value):
    """(reply fields, parts) for a value that is plain but for images and texts, None for any other."""
    found = media.split(value)
    if found is None:
        return None
    plain, items = found
    data = plain_json(plain)
    if data is None:
        return None
    try:
        entries, parts = media.pack(items)
    except (TypeError, ValueError, RecursionError):  # annotations that are no JSON
        return None
    return {"media": entries}, [("value", data), *parts]


class Objects:
    """Objects that stay here, by session."""

    def __init__(self):
        self._sessions = {}
        self._ids = itertools.count(1)

    def keep(self, session, value):
        number = next(self._ids)
        self._sessions.setdefault(session, {})[number] = value
        return number

    def get(self, session, number):
        try:
            return self._sessions[session][number]
        except KeyError:
            raise LookupError(f"object {number} of session {session} is not here: its session was released") from None

    def release(self, session):
        self._sessions.pop(session, None)

    def describe(self, session, value):
        """Returns (reply fields, parts) for a result."""
        data = plain_json(value)
        if data is not None:
            return {}, [("value", data)]
        crossing = _with_media(value)
        if crossing is not None:
            return crossing
        ref = {
            "id": self.keep(session, value),
            "type": type_name(value),
            "repr": safe_repr(value, _MAX_REPR),
            "stream": isinstance(value, (Iterator, AsyncIterator)),
        }
        record = record_json(value)
        return {"ref": ref}, [] if record is None else [("record", record)]

    def place(self, session, inputs, refs):
        """Put objects where the runtime left a null. Returns (input, value) for those whose record the runtime cannot know."""
        from promptflow.executor._input_assignment_parser import parse_node_property

        resolved = []
        for ref in refs:
            value = self.get(session, ref["id"])
            if ref.get("property"):
                value = parse_node_property(ref.get("node", ""), value, ref["property"])
                resolved.append((ref["path"][0], value))
            *parents, last = ref["path"]
            target = inputs
            for step in parents:
                target = target[step]
            target[last] = value
        return resolved
