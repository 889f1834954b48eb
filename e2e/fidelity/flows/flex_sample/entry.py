class Greeter:
    def __init__(self, greeting: str):
        self.greeting = greeting

    def __call__(self, name: str):
        return f"{self.greeting} {name}"
