from promptflow.core import log_metric, tool


@tool
def broken(values: list):
    log_metric("before failing", len(values))
    return 1 / 0
