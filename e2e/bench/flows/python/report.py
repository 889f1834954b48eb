from promptflow.core import tool


@tool
def report(counts: dict, text: str) -> str:
    longest = max(counts, key=counts.get)
    return f"{len(counts)} words in {len(text)} characters, the longest is {longest}"
