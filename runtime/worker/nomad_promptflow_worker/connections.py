"""The runtime's connections, as Python code sees them."""

from promptflow.core._connection_provider._connection_provider import ConnectionProvider
from promptflow.core._connection_provider._dict_connection_provider import DictConnectionProvider
from promptflow.core._errors import ConnectionNotFound


class Provider(DictConnectionProvider):
    """Builds a connection when it is asked for: one whose class is not installed harms only who asks for it."""

    def __init__(self, described):
        self._described = {name: {**connection, "name": name} for name, connection in described.items()}
        super().__init__({})

    def get(self, name):
        if isinstance(name, str):
            if name not in self._described:
                raise ConnectionNotFound(
                    f"Connection {name!r} not found in dict connection provider. Available keys are {list(self._described)}."
                )
            if name not in self._connections:
                self.import_requisites({name: self._described[name]})
                self._connections[name] = self._build_connection(self._described[name])
        return super().get(name)

    def list(self):
        return [self.get(name) for name in self._described]

    def value(self, name):
        """A connection's fields and its type, as a prompty's model configuration takes them from the development kit."""
        connection = self.get(name)
        return connection._to_execution_connection_dict()["value"], connection.TYPE


def install(provider):
    """Answer whoever asks prompt flow for a connection by name: model configurations, prompty files, flows called as functions."""
    from promptflow.core import _prompty_utils

    ConnectionProvider._instance = provider
    _prompty_utils.get_connection_by_name = provider.value
