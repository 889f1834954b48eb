import sys


def say(text: str, times: int = 2, shout: bool = False, more: dict = None):
    print("saying", text)
    print("done", file=sys.stderr)
    out = " ".join([text] * times)
    return {"text": out.upper() if shout else out, "types": [type(v).__name__ for v in (text, times, shout, more)]}
