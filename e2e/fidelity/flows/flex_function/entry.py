def run(a: int, b: str = "code default", c: bool = True):
    print("called with", a)
    return f"{a!r} {b!r} {c!r}"
