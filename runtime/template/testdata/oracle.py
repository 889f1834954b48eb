"""Renders the cases on stdin (a JSON list of {source, vars, chat_lists}) with promptflow-tools and prints what they gave."""
import json
import sys

from jinja2 import Environment, meta
from promptflow.tools.common import convert_to_chat_list, render_jinja_template


def run(case):
    variables = convert_to_chat_list(case["vars"]) if case["chat_lists"] else case["vars"]
    try:
        text = render_jinja_template(case["source"], trim_blocks=True, keep_trailing_newline=True, **variables)
        names = sorted(meta.find_undeclared_variables(Environment().parse(case["source"])))
        return {"text": text, "names": names}
    except Exception as error:
        return {"error": str(error)}


if __name__ == "__main__":
    # Every text leaves as \u escapes, so that lone surrogates survive.
    json.dump([run(case) for case in json.load(sys.stdin)], sys.stdout)
