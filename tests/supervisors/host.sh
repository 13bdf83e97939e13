#!/bin/sh
# Becomes the first process of a host in namespaces of its own (mount, pid):
#
#   host.sh ROOT RUN INIT...
#
# ROOT becomes /, with fresh /proc, /dev, /run and data root, and the cgroups of the kernel
# below; RUN is an exec-root below /tmp, so that its cgroup is known outside.
set -eu
root=$1
run=$2
shift 2
mount --bind "$root" "$root"
cd "$root"
mkdir -p proc sys dev run var/lib/dewar ".$run" tmp .old
mount -t proc proc proc
mount --rbind /sys sys
for dir in dev run var/lib/dewar tmp; do mount -t tmpfs tmpfs "$dir"; done
mkdir -p ".$run" dev/pts dev/shm
mknod -m 666 dev/null c 1 3
mknod -m 666 dev/zero c 1 5
mknod -m 666 dev/full c 1 7
mknod -m 666 dev/random c 1 8
mknod -m 666 dev/urandom c 1 9
mknod -m 666 dev/tty c 5 0
: >dev/console
mount -t devpts -o newinstance,ptmxmode=666 devpts dev/pts
ln -s pts/ptmx dev/ptmx
pivot_root . .old
cd /
umount -l /.old
exec env -i PATH=/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root "$@" </dev/null >/dev/console 2>&1
