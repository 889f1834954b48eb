class Tuples:
    def __call__(self, n: int):
        return (n, {n: "int key"})

    def __aggregate__(self, results):
        return {"sum": sum(r[0] for r in results), "keys": [list(r[1]) for r in results], "tuples": all(isinstance(r, tuple) for r in results)}
