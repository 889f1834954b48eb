from promptflow.core import ToolProvider, tool


class Greeter(ToolProvider):
    def __init__(self, greeting: str):
        super().__init__()
        self.greeting = greeting

    @tool
    def greet(self, name: str):
        return f"{self.greeting} {name}"
