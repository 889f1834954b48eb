#!/bin/sh
# Finishes the root file system that mmdebstrap made. Runs inside it, as root; /mnt has the files of this folder.
set -eu

# The image says Debian's own mirrors, whichever one it was built from.
rm -f /etc/apt/sources.list
cat >/etc/apt/sources.list.d/debian.sources <<EOF
Types: deb
URIs: http://deb.debian.org/debian
Suites: bookworm bookworm-updates
Components: main
Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg

Types: deb
URIs: http://deb.debian.org/debian-security
Suites: bookworm-security
Components: main
Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg
EOF

useradd --uid 1000 --user-group --create-home --home-dir /home/promptflow --shell /bin/bash promptflow
install -d -o promptflow -g promptflow /var/lib/promptflow

# Packages that custom environments add with pip go beside ours, in /usr/local; nothing else manages that folder.
cat >/etc/pip.conf <<EOF
[global]
break-system-packages = true
disable-pip-version-check = true
no-cache-dir = true
root-user-action = ignore
EOF

# Python's own modules, compiled so that their times do not matter: all files of the image get one time.
python3 /mnt/compile.py /usr/lib/python3.11 /usr/lib/python3

# What differs from build to build and is made again when needed.
rm -rf /var/log/* /var/cache/ldconfig/* /var/cache/apt/* /var/cache/debconf/*-old /var/lib/dpkg/*-old /var/lib/apt/lists/* \
	/etc/passwd- /etc/group- /etc/shadow- /etc/gshadow- /etc/subuid- /etc/subgid-
