from typing import List

from promptflow.core import log_metric, tool


@tool
def summary(verdicts: List[str], all: List[dict], weights: List[float], extras: List[str], label: str, listed: list):
    log_metric("right", verdicts.count("right"))
    log_metric(key=label, value=sum(weights))
    log_metric("extras", extras.count(None))
    log_metric("nan", float("nan"))
    log_metric("text", "five")
    print("lines", len(verdicts))
    return {"verdicts": verdicts or ["none"], "count": len(all), "extras": extras, "listed": listed}
