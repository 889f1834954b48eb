class Flow:
    def __call__(self):
        return 1

    def __aggregate__(self, a, b):
        return {}
