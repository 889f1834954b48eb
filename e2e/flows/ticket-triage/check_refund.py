from promptflow.core import tool

LIMITS = {"basic": 50.0, "business": 500.0}


@tool
def check_refund(ticket: dict, plan: str) -> dict:
    """Says whether the sum in question may be paid back without asking anybody."""
    amount = max(ticket["amounts"], default=0.0)
    limit = LIMITS.get(plan, LIMITS["basic"])
    return {"amount": amount, "limit": limit, "automatic": 0 < amount <= limit, "orders": ticket["orders"]}
