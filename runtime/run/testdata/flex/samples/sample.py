class Sample:
    def __init__(self, name: str):
        self.name = name

    def __call__(self, text: str):
        return f"{self.name.strip()}: {text}"
