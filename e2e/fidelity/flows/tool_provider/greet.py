from promptflow.core import ToolProvider, tool


class Greeter(ToolProvider):
    def __init__(self, greeting: str, times: int = 1):
        super().__init__()
        self.greeting = " ".join([greeting] * times)

    @tool
    def greet(self, name: str, sign: str = "!"):
        return f"{self.greeting} {name}{sign}"
