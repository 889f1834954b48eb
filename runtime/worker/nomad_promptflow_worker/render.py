"""Templates exactly as prompt flow's prompt nodes render them (promptflow.tools.common.render_jinja_template)."""

import os
import sys
from functools import lru_cache

from jinja2 import Environment
from jinja2.sandbox import SandboxedEnvironment


class TemplateFailure(Exception):
    """Carries the error dictionary of promptflow.tools' JinjaTemplateError, whose import costs a client library."""

    def __init__(self, message):
        super().__init__(message)
        self.error = {
            "message": message,
            "messageFormat": "",
            "messageParameters": {},
            "referenceCode": "Tool/promptflow.tools.template_rendering",
            "code": "UserError",
            "innerError": {"code": "ToolValidationError", "innerError": {"code": "JinjaTemplateError", "innerError": None}},
        }


@lru_cache(maxsize=4)
def _environment(sandboxed):
    kind = SandboxedEnvironment if sandboxed else Environment
    return kind(trim_blocks=True, keep_trailing_newline=True)


@lru_cache(maxsize=256)
def _compiled(template, sandboxed):
    return _environment(sandboxed).from_string(template)


class ChatInputList(list):
    """promptflow.tools.common.ChatInputList, whose import costs a client library: it prints as its items, line by line."""

    def __str__(self):
        return "\n".join(map(str, self))


def chat_lists(value):
    """promptflow.tools.common.convert_to_chat_list: what Azure OpenAI chat nodes make of their inputs."""
    if isinstance(value, dict):
        return {key: chat_lists(item) for key, item in value.items()}
    if isinstance(value, list):
        return ChatInputList(chat_lists(item) for item in value)
    return value


def render(template, variables):
    sandboxed = os.environ.get("PF_USE_SANDBOX_FOR_JINJA", "true").lower() != "false"
    try:
        return _compiled(template, sandboxed).render(**variables)
    except Exception as error:
        text = f"{type(error).__name__}: {error}"
        print(f"Exception occurs: {text}", file=sys.stderr)
        raise TemplateFailure(f"Failed to render jinja template: {text}. Please modify your prompt to fix the issue.") from error


def variables(template):
    """Undeclared variables with their types, in order of appearance."""
    from promptflow._utils.tool_utils import get_inputs_for_prompt_template

    return [{"name": n, "type": d.type[0].value} for n, d in get_inputs_for_prompt_template(template).items()]
