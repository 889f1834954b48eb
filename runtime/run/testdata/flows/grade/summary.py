from typing import List

from promptflow.core import log_metric, tool


@tool
def summary(grades: List[dict], verdicts: List[str], weights: List[float], truths: List[str], label: str, optional: List[str]):
    right = sum(1 for g in grades if g["verdict"] == "right")
    log_metric("right", right)
    log_metric("share", round(right / len(grades), 2) if grades else 0.0)
    log_metric(key=label, value=sum(weights))
    return {"verdicts": verdicts, "truths": truths, "optional": optional}
