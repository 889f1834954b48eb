from promptflow.contracts.types import Secret
from promptflow.core import tool
from promptflow.connections import CustomStrongTypeConnection


class ShopConnection(CustomStrongTypeConnection):
    """A shop.

    :param token: of the shop
    :type token: Secret
    :param region: of the shop
    :type region: String
    """

    token: Secret
    region: str = "nowhere"


@tool
def show(connection: ShopConnection):
    return [type(connection).__name__, isinstance(connection, ShopConnection), connection.region, len(connection.token), connection.retries]
