from promptflow.core import tool


@tool
def words(text: str) -> list:
    return [word.strip(".,").lower() for word in text.split()]
