import no_such_module_anywhere


def run():
    return 1
