def run(n: int):
    return {"a": (str(i) for i in range(n)), "b": (i * i for i in range(n)), "c": [n]}
