from package.words import word


def run(a):
    return word(a)
