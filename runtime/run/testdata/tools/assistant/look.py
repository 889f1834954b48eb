from promptflow.contracts.types import AssistantDefinition
from promptflow.core import tool


@tool
def look(definition: AssistantDefinition, n: int):
    invoker = definition._tool_invoker
    return {
        "model": definition.model,
        "instructions": definition.instructions,
        "openai": invoker.to_openai_tools(),
        "sum": invoker.invoke_tool("add", {"n": n, "way": "up"}),
        "shout": invoker.invoke_tool("shout", {"text": "a"}),
    }
