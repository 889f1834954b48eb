from promptflow.core import tool


class Both(dict):
    def __getitem__(self, key):
        return {"x": "x", 0: "zero"}[key]


@tool
def make(which: str):
    return {"key": {"b": 1}, "none": {"a": None}, "list": {"a": []}, "text": {"a": "0"}, "fine": {"a": Both()}}[which]
