from promptflow.contracts.multimedia import Image
from promptflow.core import log_metric, tool


@tool
def sum_up(made: list, given: list):
    log_metric("images", sum(isinstance(i, Image) for i in made + given))
    return [str(i) for i in made]
