from promptflow.core import tool


@tool
def after(summary: object, prompts: list):
    return [summary, prompts]
