from promptflow.core import tool


@tool
def counts(words: list) -> dict:
    found = {}
    for word in words:
        found[word] = found.get(word, 0) + len(word)
    return found
