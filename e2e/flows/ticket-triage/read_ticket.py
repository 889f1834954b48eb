import re

from promptflow.core import tool


@tool
def read_ticket(subject: str, body: str) -> dict:
    """Takes what can be read off a ticket: its words, order numbers, amounts and error codes."""
    text = f"{subject}\n{body}"
    amounts = [float(amount.replace(",", "")) for amount in re.findall(r"(?:EUR|€)\s?([\d,]+(?:\.\d\d)?)", text)]
    return {
        "words": re.findall(r"[^\W\d_]+", text.lower()),
        "orders": re.findall(r"\b[A-Z]{2}-\d{5}\b", text),
        "amounts": amounts,
        "error_codes": re.findall(r"\bE\d{3}\b", text),
        "shouting": subject.isupper(),
    }
