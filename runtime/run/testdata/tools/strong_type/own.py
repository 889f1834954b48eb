from promptflow.connections import CustomStrongTypeConnection
from promptflow.contracts.types import Secret
from promptflow.core import tool


class Mine(CustomStrongTypeConnection):
    key: Secret
    place: str = "default place"


@tool
def own(mine: Mine):
    return {"is": isinstance(mine, Mine), "place": mine.place, "key": mine.key, "shown": str(type(mine).__name__)}
