import os
from pathlib import Path

from shared.words import greet
from promptflow.core import tool

total = 0


@tool
def count(step: int, after: object = None):
    global total
    total += step
    with open("data.txt") as f:
        text = f.read()
    here = Path(__file__)
    return [total % 7 in range(7), text, greet("you"), __name__, here.name, here.is_absolute(), here.parent.name, os.path.samefile(os.getcwd(), here.parent.parent)]
