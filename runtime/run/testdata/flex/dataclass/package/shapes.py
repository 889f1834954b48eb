from dataclasses import dataclass
from enum import IntEnum
from typing import NamedTuple


class Level(IntEnum):
    LOW = 1
    HIGH = 2


class Pair(NamedTuple):
    left: int
    right: str


@dataclass
class Shape:
    name: str
    level: Level
    pair: Pair


class Shapes:
    def __call__(self, name: str) -> Shape:
        return Shape(name, Level.HIGH, Pair(len(name), name))

    def __aggregate__(self, shapes):
        return {
            "types": sorted({type(s.level).__name__ + type(s.pair).__name__ for s in shapes}),
            "rights": [s.pair.right for s in shapes],
            "level": sum(s.level for s in shapes),
        }
