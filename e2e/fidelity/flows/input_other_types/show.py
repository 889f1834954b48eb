from promptflow.core import tool


@tool
def show(secret, path, template, assistant):
    return [repr(v) for v in (secret, path, template, assistant)]
