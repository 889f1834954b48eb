from promptflow.tracing import trace


@trace
def inner(a):
    return a + 1


@trace
def run(a: int):
    return inner(a)
