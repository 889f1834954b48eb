import os


def run():
    return [os.environ["FIDELITY_FLEX"], os.environ["FIDELITY_LIST"]]
