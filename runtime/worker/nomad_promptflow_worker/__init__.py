"""The Python side of the runtime's workers.

A zygote (zygote.py) imports prompt flow once and forks workers (worker.py). A worker loads one flow (flow.py), runs its tools
(calls.py) or, of a flow without nodes, its lines (script.py) in threads or on an event loop, and keeps objects that JSON cannot carry
(values.py).
"""
