from greeting import greet


def run():
    return greet()
