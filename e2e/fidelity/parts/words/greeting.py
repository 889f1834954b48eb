def greet():
    return "included"
