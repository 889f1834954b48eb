from enum import Enum
from typing import Dict, List, Optional, Union

from promptflow.core import tool


class Color(Enum):
    RED = "red"
    BLUE = "blue"


@tool
def show(i: int, d: float, b: bool, s: str, l: list, lt: List[str], o: dict, un: Union[int, str], opt: Optional[int], color: Color, color2: Color,
         any, none: str = "none default", empty: str = "empty default", defaulted=4, **kwargs):
    values = dict(i=i, d=d, b=b, s=s, l=l, lt=lt, o=o, un=un, opt=opt, color=color, color2=color2, any=any, none=none, empty=empty, defaulted=defaulted, **kwargs)
    return {k: repr(v) for k, v in values.items()}
