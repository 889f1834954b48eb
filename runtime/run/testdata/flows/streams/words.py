from promptflow.core import tool


@tool
def words(n: int):
    for i in range(n):
        if i == 5:
            raise RuntimeError("too many words")
        yield f"{i} "
    yield 7
