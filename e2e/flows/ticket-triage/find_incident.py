from promptflow.core import tool

INCIDENTS = {
    "E503": {"title": "Sign-in is slow in region north", "eta": "14:30"},
    "E417": {"title": "Exports above 2 GB stop half-way", "eta": "tomorrow, 09:00"},
}


@tool
def find_incident(codes: list) -> dict:
    """Looks up what is known about the error codes of a ticket."""
    for code in codes:
        if code in INCIDENTS:
            return {"code": code, **INCIDENTS[code]}
    return {}
