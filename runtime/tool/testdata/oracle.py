"""Answers the cases on stdin (a JSON list of [question, arguments]) with promptflow-tools itself.

UUIDs are made countable, so that what is hidden by them can be compared.
"""
import ast
import json
import sys
import uuid

from promptflow.tools import common
from promptflow.tools.common import ChatInputList, Escaper, build_messages, convert_to_chat_list, parse_chat, to_bool
from promptflow.tools.template_rendering import render_template_jinja2


class Counter:
    def __init__(self):
        self.n = 0

    def uuid4(self):
        self.n += 1
        return uuid.UUID(int=self.n)


def failure(error):
    out = {"class": type(error).__name__, "message": str(error)}
    return {"error": out}


def chat(text):
    return parse_chat(text)


def literal(text):
    return ast.literal_eval(text)


def lower(text):
    return text.lower()


def core_error(text):
    from promptflow.core._errors import to_openai_error_message

    return to_openai_error_message(RuntimeError(text))


def chain(case):
    """A prompt node whose text goes to a chat node, both with flow inputs."""
    first = dict(case["prompt_inputs"])
    if case["prompt_from_flow"]:
        first["_inputs_to_escape"] = case["prompt_from_flow"]
    result = render_template_jinja2(template=case["prompt"], **first)
    inputs = dict(case["chat_inputs"], pre=result)
    if case["chat_from_flow"]:
        inputs["_inputs_to_escape"] = case["chat_from_flow"]
    if case["chat_lists"]:
        inputs = convert_to_chat_list(inputs)
    out = {"text": str(result), "escaped": result.get_escape_string(), "mapping": result.get_escape_mapping()}
    try:
        out["messages"] = build_messages(case["chat"], **inputs)
    except Exception as error:
        out.update(failure(error))
    return out


def answer(question, argument):
    counter = Counter()
    common.uuid.uuid4 = counter.uuid4
    try:
        return {"value": globals()[question](argument)}
    except Exception as error:
        return failure(error)


if __name__ == "__main__":
    real = uuid.UUID
    common.uuid = type("uuid", (), {})()
    out = [answer(*case) for case in json.load(sys.stdin)]
    json.dump(out, sys.stdout, default=lambda o: {"unsendable": type(o).__name__})
