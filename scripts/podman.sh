#!/bin/sh
# Fetches podman, its runtime crun and checkpointctl for tests/checkpoint; prints their directory.
#
#   scripts/podman.sh [PREFIX]        PREFIX defaults to /opt/dewar/podman
#
#   PREFIX   a root directory: Debian sid's packages with the libraries they want, CRIU, a
#            shell (the host's busybox-static) and the configuration that podman needs
#
# Nothing is installed (scripts/unpack.sh) and nothing of the host is used but its kernel:
# tests/checkpoint/podman.sh makes PREFIX the root of a mount namespace of its own.
set -eu

prefix=${1:-/opt/dewar/podman}
suite=sid
case $prefix in /*) ;; *) echo "podman.sh: prefix \"$prefix\" must be absolute" >&2; exit 2 ;; esac
here=$(cd "$(dirname "$0")" && pwd)

say() { echo "podman.sh: $*" >&2; }

# whole DIR: whether what the tests start is in DIR.
whole() {
    for file in usr/bin/podman usr/bin/crun usr/bin/conmon usr/lib/podman/netavark usr/bin/checkpointctl usr/bin/tar \
        usr/bin/gzip usr/bin/ip usr/sbin/nft usr/sbin/criu usr/bin/busybox etc/containers/policy.json; do
        [ -x "$1/$file" ] || [ -f "$1/$file" ] || { say "no $1/$file"; return 1; }
    done
}
if [ -d "$prefix" ] && whole "$prefix"; then
    echo "$prefix"
    exit 0
fi

busybox=$(command -v busybox) || { say "no busybox on PATH: scripts/deps.sh run"; exit 1; }
mkdir -p "$(dirname "$prefix")"
stage=$(mktemp -d "$prefix.XXXXXX")
trap 'rm -rf "$stage"' EXIT
trap 'exit 130' INT TERM
# crun opens libcriu2 by itself, netavark starts nft; CRIU dumps a network namespace with ip and a tmpfs with tar and gzip.
"$here/unpack.sh" "$suite" "$stage" "podman crun conmon netavark nftables criu libcriu2 iproute2 tar gzip checkpointctl" '^(lib|zlib1g$)'
rm -rf "$stage/usr/share" "$stage/usr/include" "$stage/usr/lib/systemd" "$stage/usr/libexec/podman" \
    "$stage/usr/lib/podman/netavark-"*
rm -f "$stage/usr/bin/crun-wasm" "$stage/usr/bin/podmansh"
find "$stage" -name '*.a' -exec rm -f {} +
find "$stage" -type d -name gconv -prune -exec rm -rf {} +
# Older packages have /lib, and sid's have /usr/lib alone.
for name in bin sbin lib lib64; do
    mkdir -p "$stage/usr/$name"
    if [ -d "$stage/$name" ] && [ ! -L "$stage/$name" ]; then
        cp -a "$stage/$name/." "$stage/usr/$name/"
        rm -rf "${stage:?}/$name"
    fi
    [ -L "$stage/$name" ] || ln -s "usr/$name" "$stage/$name"
done
cp -L "$busybox" "$stage/usr/bin/busybox"
for name in sh cat mkdir sleep rm; do
    [ -e "$stage/usr/bin/$name" ] || ln -s busybox "$stage/usr/bin/$name"
done
mkdir -p "$stage/etc/containers" "$stage/etc/criu"
echo '{"default": [{"type": "insecureAcceptAnything"}]}' >"$stage/etc/containers/policy.json"
# No iptables here.
echo 'network-lock nftables' >"$stage/etc/criu/crun.conf"
for name in proc sys dev run tmp mnt old root var/lib/containers var/tmp; do
    mkdir -p "$stage/$name"
done
chmod 755 "$stage"
whole "$stage" || { say "what was fetched is not whole"; exit 1; }
rm -rf "$prefix"
mv "$stage" "$prefix"
say "fetched $prefix ($(du -sm "$prefix" | cut -f1) MiB)"
echo "$prefix"
