def run(a, b=None):
    return {"a": a, "b": b}
