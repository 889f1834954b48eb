from promptflow.core import tool


@tool
def show(text, dict):
    return [[isinstance(text, str), type(text).__name__], [isinstance(dict, type({})), type(dict).__name__]]
