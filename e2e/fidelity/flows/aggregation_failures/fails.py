from promptflow.core import log_metric, tool


@tool
def fails(values: list):
    log_metric("before", len(values))
    raise ZeroDivisionError("in the aggregation")
