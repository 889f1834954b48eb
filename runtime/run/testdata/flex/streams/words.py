from dataclasses import dataclass


@dataclass
class Both:
    one: object
    two: str


def words(text: str, shape: str):
    def each():
        for i, word in enumerate(text.split()):
            yield word
            yield i

    def broken():
        yield "a"
        raise RuntimeError("mid stream")

    if shape == "plain":
        return each()
    if shape == "dict":
        return {"a": each(), "b": (w for w in text), "c": 1}
    if shape == "dataclass":
        return Both(each(), text)
    return broken()
