from promptflow.contracts.types import AssistantDefinition
from promptflow.core import tool


@tool
def ask(question: str, assistant: AssistantDefinition):
    return question
