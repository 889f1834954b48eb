#!/bin/sh
# Installs the Python packages of requirements.lock into /usr/local. Runs in the root file system of the layer below, as root; /mnt
# has the files of this folder. Nothing but /usr/local becomes the layer.
set -eu

site=/usr/local/lib/python3.11/dist-packages
tools=/tmp/build-tools
set -- /usr/share/python-wheels/pip-*.whl
pip() { python3 "$wheel/pip" --no-cache-dir --no-input "$@"; }
wheel=$1

echo "stage: fetching what builds wheels"
pip install --quiet --no-compile --require-hashes --target "$tools" -r /mnt/build-requirements.lock

# --no-build-isolation: a source archive is built by the tools of the lock file, not by whatever is newest. --ignore-installed: those
# tools do not count as installed.
echo "stage: installing"
PYTHONPATH=$tools pip install --no-compile --require-hashes --no-build-isolation --ignore-installed -r /mnt/requirements.lock

# What nothing needs at run time: the packages' own tests, type stubs, the browser's source maps, Windows launchers, manuals.
echo "stage: trimming"
find "$site" -depth -type d \( -name tests -o -path "$site/gitdb/test" -o -path "$site/smmap/test" -o -path "$site/jsonschema/benchmarks" \) \
	-exec rm -rf {} +
find "$site" -type f \( -name '*.pyi' -o -name '*.js.map' -o -name '*.css.map' -o -name '*.exe' \) -delete
find "$site" -depth -type d -name __pycache__ -exec rm -rf {} +
rm -rf /usr/local/share/man/*

echo "stage: compiling"
python3 /mnt/compile.py "$site"

echo "stage: checking"
python3 -m pip check
