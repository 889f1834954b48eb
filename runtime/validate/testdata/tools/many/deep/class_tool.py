from promptflow.core import ToolProvider, tool


class Greeter(ToolProvider):
    """Greets."""

    def __init__(self, greeting: str):
        super().__init__()
        self.greeting = greeting

    @tool
    def greet(self, name: str) -> str:
        """Says hello."""
        return f"{self.greeting} {name}"
