from promptflow.core import ToolProvider, tool


class A(ToolProvider):
    @tool
    def a(self):
        return 1

    @tool
    def b(self):
        return 2
