from promptflow.core import tool


@tool
def words(n: int, end: str):
    for i in range(n):
        yield f"{i} é "
    if end == "number":
        yield 5
    if end == "fail":
        raise ValueError("no more words")
