class Counter:
    def __init__(self, start: int, label: str = "n", weights: list = None):
        self.start, self.label, self.weights = start, label, weights

    def __call__(self, step: int, text: str = "x"):
        return {self.label: self.start + step, "text": text, "weights": self.weights}

    def __aggregate__(self, lines):
        return {"total": sum(line[self.label] for line in lines), "attributes": "".join(line.text for line in lines), "keys": sorted(lines[0])}
