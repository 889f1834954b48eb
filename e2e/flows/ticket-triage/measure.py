from typing import List

from promptflow.core import log_metric, tool


@tool
def measure(grades: List[dict]) -> dict:
    """Sums up the graded tickets; what it returns shows in its node run only, the metrics show in the run."""
    graded = [grade for grade in grades if grade["graded"]]
    count = len(graded)
    share = (lambda key: round(sum(grade[key] for grade in graded) / count, 3)) if count else (lambda key: 0.0)
    log_metric("tickets", len(grades))
    log_metric("team_accuracy", share("team_right"))
    log_metric("urgency_accuracy", share("urgent_right"))
    log_metric("urgent_missed", sum(grade["urgent_missed"] for grade in graded))
    teams = {}
    for grade in grades:
        teams[grade["team"]] = teams.get(grade["team"], 0) + 1
    return {"by_team": teams}
