"""Loads images with prompt flow's own code: reads [[format, type, value], …] and prints for each what became of it."""

import json
import sys

from promptflow._utils.multimedia_utils import MultimediaProcessor
from promptflow.contracts.flow import FlowInputDefinition
from promptflow.contracts.multimedia import Image, Text
from promptflow.contracts.tool import ValueType


def show(value):
    if isinstance(value, Image):
        return {"image": str(value), "mime": value._mime_type, "url": value.source_url}
    if isinstance(value, Text):
        return {"text": str(value), "annotations": value._annotations}
    if isinstance(value, list):
        return [show(item) for item in value]
    if isinstance(value, dict):
        return {key: show(item) for key, item in value.items()}
    return value


def load(format, kind, value):
    processor = MultimediaProcessor.create(format)
    definition = FlowInputDefinition(type=ValueType(kind))
    try:
        loaded = processor.load_multimedia_data({"x": definition}, {"x": value})["x"]
    except Exception as error:
        return {"error": type(error).__name__, "message": str(error)}
    base64 = processor.convert_multimedia_data_to_base64_dict(loaded)
    return {"value": show(loaded), "base64": json.loads(json.dumps(base64)), "string": json.loads(json.dumps(processor.convert_multimedia_data_to_string(loaded)))}


print(json.dumps([load(*case) for case in json.load(sys.stdin)]))
