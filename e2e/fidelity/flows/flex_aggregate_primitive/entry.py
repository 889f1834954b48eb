class Flow:
    def __call__(self, a: int):
        return a

    def __aggregate__(self, lines):
        return f"{lines}"
