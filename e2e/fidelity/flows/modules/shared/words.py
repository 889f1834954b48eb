from .more import SIGN


def greet(name):
    return f"hello {name}{SIGN}"
