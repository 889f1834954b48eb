from promptflow.core import tool


def pieces(text):
    yield from text.split()


@tool(streaming_option_parameter="live")
def answer(text: str, live: bool = False):
    return pieces(text) if live else {"whole": text, "live": live}
