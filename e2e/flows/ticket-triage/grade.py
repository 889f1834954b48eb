from promptflow.core import tool


@tool
def grade(routing: dict, expected_team: str, expected_urgent: bool) -> dict:
    """Compares a routing with what a person decided."""
    return {
        "graded": expected_team != "",
        "team": routing["team"],
        "team_right": routing["team"] == expected_team,
        "urgent_right": routing["urgent"] == expected_urgent,
        "urgent_missed": expected_urgent and not routing["urgent"],
    }
