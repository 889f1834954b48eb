from promptflow.contracts.types import AssistantDefinition
from promptflow.core import tool


@tool
def n(definition: AssistantDefinition):
    return 1
