"""Compiles all Python modules below the given folders, the same bytes in every build.

The compiled files are of the kind "unchecked hash": Python does not compare them with their sources, so the sources' times do not
matter and start-up asks for less. What pip or dpkg installs later replaces source and compiled file together.

A compiled file's bytes depend a little on what its process compiled before it. So every file is compiled by a fixed worker, in a
fixed order, whatever the number of processors.
"""

import os
import py_compile
import sys
from multiprocessing import get_context

WORKERS = 4


def sources(roots):
    for root in roots:
        for folder, folders, files in os.walk(root):
            folders.sort()
            for name in sorted(files):
                if name.endswith(".py"):
                    yield os.path.join(folder, name)


def compile_all(paths):
    failed = []
    for path in paths:
        try:
            py_compile.compile(path, doraise=True, quiet=2, invalidation_mode=py_compile.PycInvalidationMode.UNCHECKED_HASH)
        except py_compile.PyCompileError:
            # Some packages carry templates or code for other versions of Python; the interpreter would say so on import.
            failed.append(path)
    return failed


def main():
    paths = list(sources(sys.argv[1:]))
    shares = [paths[i::WORKERS] for i in range(WORKERS)]
    with get_context("spawn").Pool(WORKERS, maxtasksperchild=1) as pool:
        failed = sorted(sum(pool.map(compile_all, shares, chunksize=1), []))
    for path in failed:
        print("not compiled, it is no valid Python:", path)
    print("compiled", len(paths) - len(failed), "modules")


if __name__ == "__main__":
    main()
