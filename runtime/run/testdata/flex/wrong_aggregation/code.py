class Code:
    def __init__(self, how: str):
        self.how = how

    def __call__(self, n: int):
        return {"n": n}

    def __aggregate__(self, lines):
        if self.how == "raise":
            raise ZeroDivisionError("no lines")
        return 5
