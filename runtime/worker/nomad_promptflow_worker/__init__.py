"""The Python side of the runtime's workers.

A zygote (zygote.py) imports prompt flow once and forks workers (worker.py). The first of a flow's processes is forked from in turn where that
is safe (forkable.py), so that the flow's code is imported once. A worker loads one flow (flow.py), runs its tools
(calls.py) or, of a flow without nodes, its lines (script.py) in threads or on an event loop, and keeps objects that JSON cannot carry
(values.py).
"""
