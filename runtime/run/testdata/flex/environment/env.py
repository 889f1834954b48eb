import os

AT_IMPORT = os.environ.get("FLEX_TEST_A")


def env():
    return {"values": [os.environ.get("FLEX_TEST_" + n) for n in "ABCD"], "import": AT_IMPORT, "cwd": os.path.exists("flow.flex.yaml")}
