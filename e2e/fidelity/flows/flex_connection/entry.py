from promptflow.connections import CustomConnection
from promptflow.core import OpenAIModelConfiguration


class Flow:
    def __init__(self, connection: CustomConnection, model: OpenAIModelConfiguration):
        self.connection, self.model = connection, model

    def __call__(self):
        return {"region": self.connection.region, "model": self.model.model, "type": type(self.model).__name__, "connection": self.model.connection}
