from jinja2 import Template

from promptflow._core.tool import ToolProvider, tool
from promptflow.connections import CustomConnection, CustomStrongTypeConnection
from promptflow.contracts.types import PromptTemplate, Secret


class Box(CustomStrongTypeConnection):
    """Where a box is.

    :param key: its key
    :param place: its place
    """

    key: Secret
    place: str


@tool
def shout(text: str, times: int = 1):
    return " ".join([text.upper()] * times)


class Prefix(ToolProvider):
    def __init__(self, prefix: str):
        super().__init__()
        self.prefix = prefix

    @tool
    def add(self, text: str):
        return self.prefix + text


@tool
def reach(box: Box, path: str):
    return {"is": isinstance(box, Box), "place": box.place + path, "key": len(box.key)}


@tool(type="custom_llm")
def ask(connection: CustomConnection, prompt: PromptTemplate, upper: bool = False, **kwargs):
    from promptflow.tools.common import PromptResult, build_messages

    hidden = {k: isinstance(v, PromptResult) and sorted(v.get_escape_mapping().values()) for k, v in kwargs.items() if k != "_inputs_to_escape"}
    text = Template(prompt).render(**kwargs)
    messages = build_messages(prompt=prompt, **kwargs) if ":\n" in prompt else None
    return {
        "text": text.upper() if upper else text,
        "from": connection.place,
        "escape": kwargs.get("_inputs_to_escape"),
        "hidden": hidden,
        "messages": messages,
    }
