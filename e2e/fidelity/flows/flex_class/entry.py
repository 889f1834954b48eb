class Greeter:
    def __init__(self, greeting: str, times: int = 1):
        self.greeting = " ".join([greeting] * int(times))
        self.calls = 0

    def __call__(self, name: str) -> dict:
        self.calls += 1
        return {"text": f"{self.greeting} {name}", "length": len(name)}

    def __aggregate__(self, lines: list) -> dict:
        return {"lines": len(lines), "letters": sum(line["length"] for line in lines), "text": lines[0]["text"]}
