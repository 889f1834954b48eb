from enum import Enum
from typing import List, Optional, Union

from promptflow.connections import AzureOpenAIConnection, OpenAIConnection
from promptflow.contracts.multimedia import Image
from promptflow.core import tool


class Mood(str, Enum):
    GOOD = "good"
    BAD = "bad"


@tool(name="rich tool", description="Has parameters of every kind.")
def rich(
    text: str,
    connection: Union[AzureOpenAIConnection, OpenAIConnection] = None,
    mood: Mood = Mood.GOOD,
    number: int = 3,
    share: float = 0.5,
    yes: bool = True,
    words: list = None,
    texts: List[str] = None,
    maybe: Optional[int] = None,
    picture: Image = None,
    mapping: dict = None,
    plain=None,
    counted=7,
    **rest,
) -> str:
    return text
