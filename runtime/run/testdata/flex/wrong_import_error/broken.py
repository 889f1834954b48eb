import no_such_module_anywhere


def f():
    return 1
