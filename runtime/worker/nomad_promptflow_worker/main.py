"""Starts the zygote. Descriptor 3 is its socket, descriptor 4 the read end of a pipe that closes with the runtime."""

import os
import sys

# Only this package comes from here: a flow's modules must not find ours, nor ours the flow's.
here = os.path.dirname(os.path.abspath(__file__))
sys.path[:] = [os.path.dirname(here)] + [p for p in sys.path if p != here]
from nomad_promptflow_worker import zygote  # noqa: E402

del sys.path[0]
sys.argv[:] = [""]

if __name__ == "__main__":
    zygote.run(control_fd=3, tie_fd=4)
