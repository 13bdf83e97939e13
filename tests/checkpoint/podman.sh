#!/bin/sh
# Runs a script of the tests among podman's programs, and ends what it leaves running.
#
#   podman.sh ROOT DIR SCRIPT [CGROUP]
#
#   ROOT     what scripts/podman.sh fetched: the root directory of a mount namespace of its own
#   DIR      a directory of the host, /mnt in there
#   SCRIPT   for sh, with $podman to be called instead of podman and $run for its `run`; its network is its own
#   CGROUP   another cgroup that containers of SCRIPT are in, by its path below each hierarchy
#
# Containers and images are in memory and gone in the end, cgroups below one of this run's.
set -eu
root=$1 dir=$2 script=$3 group=${4:-}

if [ -z "${INSIDE:-}" ]; then
    # Whatever runs in the pid namespace ends with the first process of it.
    INSIDE=$$ unshare --mount --net --pid --fork --kill-child --propagation private sh "$0" "$@" && status=0 || status=$?
    for left in "/dewar-podman-$$" ${group:+"$group"}; do
        find /sys/fs/cgroup -depth -type d -path "*$left*" -exec rmdir {} + 2>/dev/null || :
    done
    exit "$status"
fi

parent=/dewar-podman-$INSIDE
mount --bind "$root" "$root"
cd "$root"
mount -t proc proc proc
mount --rbind /sys sys
if [ -d /sys/fs/cgroup/unified ]; then
    # crun wants a host of one version: without the second hierarchy it is of the first.
    mount -t tmpfs cgroup sys/fs/cgroup
    for hierarchy in /sys/fs/cgroup/*; do
        name=${hierarchy##*/}
        [ "$name" != unified ] && [ -d "$hierarchy" ] && [ ! -L "$hierarchy" ] || continue
        mkdir "sys/fs/cgroup/$name"
        mount --bind "$hierarchy" "sys/fs/cgroup/$name"
    done
fi
mount --rbind /dev dev
for name in run tmp var/lib/containers var/tmp; do
    mount -t tmpfs tmpfs "$name"
done
mkdir -p run/lock
mount --bind "$dir" mnt
pivot_root . old
cd /
export PATH=/usr/bin:/usr/sbin HOME=/root PODMAN_IGNORE_CGROUPSV1_WARNING=1
podman="podman --storage-driver vfs --cgroup-manager cgroupfs --events-backend none"
run="$podman run --cgroup-parent $parent --ulimit nofile=1024:1024 --ulimit nproc=1000:1000"
export podman run
ip link set lo up
exec sh -ec "$script"
