"""Images and texts of prompt flow, which cross to the runtime and back as what they are."""

import json

from promptflow.contracts.multimedia import Image, Text

_IMAGE = {"_hash", "_mime_type", "_source_url"}  # what an image knows; one that a tool gave more stays here
_TEXT = {"_annotations"}
_SCALARS = frozenset((type(None), bool, int, float, str))
_MAX_DEPTH = 300


# Texts mean something in the openai-vision message format only; elsewhere they are strings of a class of their own, and stay here.
texts_cross = False


def is_image(value):
    return type(value) is Image and vars(value).keys() == _IMAGE


def is_text(value):
    return type(value) is Text and vars(value).keys() == _TEXT


class NotPlain(Exception):
    """The value has something in it that is no plain data, no image and no text."""


def split(value):
    """Returns a copy of value with a null for every image and a str for every text, and [(path, image or text)]. None when there is
    neither, or anything else that is not plain."""
    found = []
    try:
        copy = _split(value, [], found)
    except NotPlain:
        return None
    return (copy, found) if found else None


def _split(value, path, found):
    kind = type(value)
    if kind in _SCALARS:
        return value
    if len(path) > _MAX_DEPTH:
        raise NotPlain
    if kind is list:
        return [_split(item, [*path, i], found) for i, item in enumerate(value)]
    if kind is dict:
        if not all(type(key) is str for key in value):
            raise NotPlain
        return {key: _split(item, [*path, key], found) for key, item in value.items()}
    if is_image(value):
        found.append((path, value))
        return None
    if texts_cross and is_text(value):
        found.append((path, value))
        return str(value)
    raise NotPlain


def pack(found):
    """Returns (head entries, parts) for what split found. Raises for annotations that are no JSON."""
    entries, parts = [], []
    for number, (path, item) in enumerate(found):
        name = f"media{number}"
        if isinstance(item, Image):
            entries.append({"path": path, "mime": item._mime_type, "url": item.source_url or "", "part": name})
            parts.append((name, bytes(item)))
        else:
            entries.append({"path": path, "text": True, "part": name})
            parts.append((name, json.dumps(item._annotations).encode()))
    return entries, parts


def place(inputs, entries, parts):
    """Put images and texts where the runtime says."""
    for entry in entries:
        *parents, last = entry["path"]
        target = inputs
        for step in parents:
            target = target[step]
        data = parts[entry["part"]]
        if entry.get("text"):
            target[last] = Text(target[last], json.loads(data))
        else:
            target[last] = Image(data, entry["mime"], entry["url"] or None)
