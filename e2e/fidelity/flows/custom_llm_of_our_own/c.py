from jinja2 import Template
from promptflow.connections import OpenAIConnection
from promptflow.contracts.types import PromptTemplate
from promptflow.core import tool


@tool
def c(connection: OpenAIConnection, prompt: PromptTemplate, **kwargs):
    return Template(prompt).render(**kwargs) + type(connection).__name__ + str(isinstance(prompt, str))
