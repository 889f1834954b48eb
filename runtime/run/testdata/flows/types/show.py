from promptflow.core import tool


@tool
def show(i, d, b, s, l, o, f, x):
    return {k: [type(v).__name__, repr(v)] for k, v in dict(i=i, d=d, b=b, s=s, l=l, o=o, f=f, x=x).items()}
