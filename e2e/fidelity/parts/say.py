import zipfile

from promptflow.core import tool
from words.greeting import greet


@tool
def say():
    with zipfile.ZipFile("packed.zip") as packed:
        return [greet(), sorted(n for n in packed.namelist() if not n.endswith("/"))]
