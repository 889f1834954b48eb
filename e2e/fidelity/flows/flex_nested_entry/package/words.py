def word(a):
    return f"word {a}"
