#!/bin/sh
# Runs a command in a root file system: enter.sh ROOT INPUTS COMMAND…, where INPUTS is a folder that the command sees as /mnt. It must
# run in mount and process namespaces of its own, so that what it mounts goes when it ends, however it ends.
set -eu
root=$1
inputs=$2
shift 2

mount -t proc proc "$root/proc"
mount --bind "$inputs" "$root/mnt"
mkdir -p "$root/dev/shm"
mount -t tmpfs tmpfs "$root/dev/shm"
for file in /dev/null /dev/zero /dev/full /dev/random /dev/urandom /etc/resolv.conf /etc/hosts; do
	[ -e "$file" ] || continue
	[ -e "$root$file" ] || : >"$root$file"
	mount --bind "$file" "$root$file"
done
exec chroot "$root" "$@"
