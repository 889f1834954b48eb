from promptflow.core import tool

VOCABULARY = {
    "billing": {"invoice", "charged", "refund", "payment", "card", "money", "price", "bill", "paid", "vat"},
    "technical": {"error", "crash", "crashes", "login", "timeout", "slow", "bug", "broken", "down", "sync", "exports"},
    "shipping": {"delivery", "parcel", "package", "courier", "arrived", "tracking", "delivered", "warehouse"},
}
URGENT = {"urgent", "immediately", "down", "asap", "outage", "lawyer", "twice"}


@tool
def route(ticket: dict, plan: str = "basic", threshold: int = 2) -> dict:
    """Sends a ticket to the team whose words it uses most; to people when there are too few of them."""
    words = ticket["words"]
    scores = {team: sum(word in vocabulary for word in words) for team, vocabulary in VOCABULARY.items()}
    scores["technical"] += 2 * len(ticket["error_codes"])
    team = max(scores, key=scores.get)
    if scores[team] < threshold:
        team = "people"
    urgent = ticket["shouting"] or any(word in URGENT for word in words) or (plan == "business" and team == "technical")
    return {"team": team, "urgent": urgent, "scores": scores}
