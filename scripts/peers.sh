#!/bin/sh
# Finds or fetches dockerd and podman, to measure dewar against; installs and starts none.
#
#   scripts/peers.sh [PREFIX]                    prints PREFIX, default /opt/dewar/peers
#   scripts/peers.sh within PREFIX DIR COMMAND   runs COMMAND with PREFIX as its root
#
# PREFIX becomes a whole small root: Debian sid's docker.io, containerd, runc, podman,
# crun, conmon, netavark, iptables and criu with their libraries (scripts/unpack.sh:
# nothing of the host is upgraded) and a static busybox. The docker client is the host's.
#
# `within` gives COMMAND mount, network, pid, IPC, UTS and cgroup namespaces of its own, PREFIX
# read-only, and DIR, which must be on a filesystem that overlays can be made on, as /work.
# It is process 1 there; when it or this script ends, so does everything it started, and its
# cgroups are removed. The mounts and rules it made go with its namespaces.
#
# Needs root, util-linux and a static busybox; cgroup v1 (nobody tried this on v2).
set -eu

say() { echo "peers.sh: $*" >&2; }
die() { say "$*"; exit 1; }

[ "$(id -u)" = 0 ] || die "not root: engines need root"

# The hierarchies of cgroup v1. A hybrid host's v2 one carries no controllers and only
# makes podman think that there is nothing else.
hierarchies() {
    awk '$3 == "cgroup" { print $2 }' /proc/mounts
}

# ---- inside: the namespaces are there, the host's root is still seen -------------------

if [ "${1:-}" = inside ]; then
    prefix=$2 dir=$3
    shift 3
    PATH=$PATH:/usr/sbin:/sbin
    mounted=$(hierarchies)
    mount --bind "$prefix" "$prefix"
    cd "$prefix"
    mount -t proc proc proc
    mount -t sysfs -o ro sysfs sys
    mount -t tmpfs -o mode=755 tmpfs sys/fs/cgroup
    # In this cgroup namespace each shows the cgroup that `within` made, as its root.
    for hierarchy in $mounted; do
        name=${hierarchy##*/}
        flags=$(awk -v at="$hierarchy" '$2 == at && $3 == "cgroup" { print $4 }' /proc/mounts |
            tr , '\n' | grep -vE '^(ro|rw|relatime|noatime|nosuid|nodev|noexec|release_agent=.*)$' | paste -sd, -)
        mkdir "sys/fs/cgroup/$name"
        mount -t cgroup -o "$flags" cgroup "sys/fs/cgroup/$name"
    done
    mount --rbind /dev dev
    mount -t tmpfs -o mode=1777 tmpfs tmp
    for place in run var root; do
        mount -t tmpfs -o mode=755 tmpfs "$place"
    done
    mkdir -p run/lock var/lib var/tmp
    mount --bind "$dir" work
    mount -o remount,bind,ro .
    # The mount covers the directory that was entered first.
    cd "$prefix"
    pivot_root . old
    busybox umount -l /old
    busybox ip link set lo up
    export PATH=/usr/sbin:/usr/bin HOME=/root PODMAN_IGNORE_CGROUPSV1_WARNING=1
    unset DOCKER_HOST CONTAINER_HOST
    exec "$@"
fi

# ---- within ---------------------------------------------------------------------------

if [ "${1:-}" = within ]; then
    [ $# -ge 4 ] || die "usage: peers.sh within PREFIX DIR COMMAND [ARGUMENT...]"
    prefix=$(cd "$2" && pwd) dir=$(cd "$3" && pwd) self=$(cd "$(dirname "$0")" && pwd)/$(basename "$0")
    shift 3
    [ -x "$prefix/usr/sbin/dockerd" ] || die "no dockerd in $prefix: scripts/peers.sh $prefix fetches it"
    cgroups=$(hierarchies)
    [ -n "$cgroups" ] || die "no cgroup v1 hierarchy is mounted: nobody tried these engines here on v2"
    group=dewar-peers-$$
    child=
    clean() {
        trap - EXIT INT TERM
        if [ -n "$child" ]; then
            # --kill-child: with unshare dies process 1 of the namespace, and so all of it.
            kill -9 "$child" 2>/dev/null || :
            wait "$child" 2>/dev/null || :
        fi
        for hierarchy in $cgroups; do
            # The processes are killed by now, and gone soon.
            for _ in 1 2 3 4 5 6 7 8 9 10; do
                [ -d "$hierarchy/$group" ] || break
                find "$hierarchy/$group" -depth -type d -exec rmdir {} + 2>/dev/null || sleep 0.2
            done
            [ ! -d "$hierarchy/$group" ] || say "cgroup $hierarchy/$group is still in use and was left"
        done
    }
    trap clean EXIT
    trap 'exit 130' INT TERM
    for hierarchy in $cgroups; do
        mkdir "$hierarchy/$group"
        for file in cpuset.cpus cpuset.mems; do
            [ ! -e "$hierarchy/$file" ] || cat "$hierarchy/$file" >"$hierarchy/$group/$file"
        done
    done
    # The cgroup namespace's root is where the process is that makes it.
    sh -c 'group=$1; shift
        for hierarchy in $1; do echo $$ >"$hierarchy/$group/cgroup.procs"; done
        shift
        exec "$@"' sh "$group" "$cgroups" \
        unshare --mount --net --pid --ipc --uts --cgroup --fork --kill-child --propagation private \
        sh "$self" inside "$prefix" "$dir" "$@" &
    child=$!
    status=0
    wait "$child" || status=$?
    exit "$status"
fi

# ---- fetch ----------------------------------------------------------------------------

[ $# -le 1 ] || die "usage: peers.sh [PREFIX]"
prefix=${1:-/opt/dewar/peers}
case $prefix in /*) ;; *) echo "peers.sh: prefix \"$prefix\" must be absolute" >&2; exit 2 ;; esac

# version PREFIX PROGRAM [FLAG]: what `PROGRAM --version` prints; podman reads /proc for that.
version() {
    unshare --mount --propagation private sh -c 'mount -t proc proc "$0/proc" && PATH=$PATH:/usr/sbin:/usr/bin exec chroot "$0" "$1" "$2"' "$1" "$2" "${3:---version}"
}

# fault PREFIX: prints why its engines do not start here; nothing if they do.
fault() {
    [ -d "$1" ] || { echo "not there"; return; }
    for program in dockerd podman criu tar; do
        version "$1" "$program" >/dev/null 2>&1 || { echo "its $program does not start"; return; }
    done
    version "$1" ip -V >/dev/null 2>&1 || echo "its ip does not start"
}

reason=$(fault "$prefix")
if [ -n "$reason" ]; then
    say "$prefix will not do: $reason"
    busybox=
    for candidate in /bin/busybox /usr/bin/busybox; do
        [ ! -x "$candidate" ] || busybox=$candidate
    done
    [ -n "$busybox" ] || die "no busybox: apt-get install busybox-static"
    # Built beside the prefix and renamed, so that an interrupted run leaves no half of one.
    mkdir -p "$(dirname "$prefix")"
    stage=$(mktemp -d "$prefix.XXXXXX")
    trap 'rm -rf "$stage"' EXIT
    trap 'exit 130' INT TERM
    chmod 755 "$stage"
    # crun opens libcriu only when it freezes something, and criu runs tar and ip: no package depends on them.
    "$(dirname "$0")/unpack.sh" sid "$stage" "docker.io podman criu libcriu2 tar gzip iproute2" \
        '^(lib|zlib1g$|containerd$|runc$|tini$|iptables$|conmon$|crun$|netavark$|golang-github-containers|containers-common)' ||
        die "dockerd and podman could not be had"
    rm -rf "$stage/usr/share/doc" "$stage/usr/share/man" "$stage/usr/include"
    for name in bin sbin lib lib64; do
        [ -e "$stage/$name" ] || ln -s "usr/$name" "$stage/$name"
    done
    (cd "$stage" && mkdir -p proc sys dev tmp run var root work old etc)
    # What the packages' scripts would have linked.
    for name in iptables iptables-save iptables-restore ip6tables ip6tables-save ip6tables-restore; do
        ln -s xtables-nft-multi "$stage/usr/sbin/$name"
    done
    cp "$busybox" "$stage/usr/bin/busybox"
    for name in sh sleep; do
        ln -s busybox "$stage/usr/bin/$name"
    done
    echo 'root:x:0:0:root:/root:/bin/sh' >"$stage/etc/passwd"
    echo 'root:x:0:' >"$stage/etc/group"
    rm -rf "$prefix"
    mv "$stage" "$prefix"
    trap - EXIT
    reason=$(fault "$prefix")
    [ -z "$reason" ] || die "what was fetched into $prefix does not work here: $reason"
fi
say "$prefix has $(version "$prefix" dockerd | cut -d, -f1) and $(version "$prefix" podman)"
echo "$prefix"
