VALUE = 3


class NoCall:
    pass


class BadInit:
    def __init__(self):
        raise KeyError("init")

    def __call__(self):
        return 1


class TwoParameters:
    def __call__(self):
        return 1

    def __aggregate__(self, one, two):
        return {}
