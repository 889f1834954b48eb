from promptflow.core import log_metric, tool


@tool
def count(values: list):
    log_metric("values", len(values))
    log_metric("values", len(values) + 1)
    log_metric("text", "x")
    return values
