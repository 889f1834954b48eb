class Defaults:
    def __init__(self, x: str = "from code", y: float = 1.0):
        self.made = [x, y]

    def __call__(self, a: str, b: int = 1, c: str = "code"):
        return {"values": [a, b, c], "made": self.made}
