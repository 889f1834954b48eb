"""Looks at a base image from inside, as its user; run by the tests. Fails with what is wrong."""

import importlib.util
import os
import pathlib
import sys

assert os.getuid() == 1000 and os.getgid() == 1000, os.getresuid()
assert sys.version_info[:2] == (3, 11), sys.version
for folder in ("/home/promptflow", "/var/lib/promptflow"):
    probe = pathlib.Path(folder, "probe")
    probe.write_text("x")
    probe.unlink()
for folder in ("/usr/local/bin", "/etc"):
    assert not os.access(folder, os.W_OK), folder

# What flows import.
from promptflow import tool  # noqa: E402
import jinja2, numpy, openai, pandas, promptflow.connections, promptflow.core, promptflow.tracing  # noqa: E401, E402, F401
from promptflow.core import Flow, Prompty  # noqa: E402, F401
from promptflow.tools import aoai, aoai_gpt4v, azure_content_safety, embedding, list as tool_list, open_model_llm  # noqa: E402, F401
from promptflow.tools import openai as openai_tool, openai_gpt4v, serpapi, template_rendering  # noqa: E402, F401
import bz2, ctypes, lzma, readline, sqlite3, ssl, zoneinfo  # noqa: E401, E402, F401

zoneinfo.ZoneInfo("Europe/Berlin")
tools = tool_list.list_package_tools()
assert "promptflow.tools.serpapi.SerpAPI.search" in tools, sorted(tools)


@tool
def double(n: int) -> int:
    return 2 * n


assert double(21) == 42

# Every module was compiled, in the kind that ignores its source's time.
missing, wrong = [], []
for root in ("/usr/lib/python3.11", "/usr/local/lib/python3.11/dist-packages"):
    for source in pathlib.Path(root).rglob("*.py"):
        compiled = pathlib.Path(importlib.util.cache_from_source(str(source)))
        if not compiled.exists():
            missing.append(str(source))
        elif compiled.read_bytes()[4:8] != b"\x01\x00\x00\x00":
            wrong.append(str(source))
assert not wrong, wrong[:10]
# Templates and code for other versions of Python, which no interpreter of this version can load.
assert len(missing) < 10, missing

# Nothing of the build stayed.
assert not os.listdir("/usr/share/man") if os.path.exists("/usr/share/man") else True
assert not list(pathlib.Path("/usr/local").rglob("tests/__init__.py"))
print("checked")
