class Flow:
    def __call__(self, a: int):
        return {"a": a}

    def __aggregate__(self, lines):
        raise ValueError("in the aggregation")
