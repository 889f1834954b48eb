def one(kind: str) -> str:
    return {"text": "hello", "none": None, "int": 7, "list": [1, "x", None], "tuple": (1, 2), "nan": float("nan"), "empty": {}, "bool": False}[kind]
