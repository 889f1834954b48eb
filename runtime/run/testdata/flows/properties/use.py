from promptflow.core import tool


@tool
def use(name, tags, pair, whole="no whole", first="no first"):
    return f"{name} {tags} {type(whole).__name__} {first} {pair!r}"
