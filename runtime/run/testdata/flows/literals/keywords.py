from promptflow.core import tool


@tool
def keywords(a: str, **kwargs):
    return repr((a, sorted(kwargs.items())))
