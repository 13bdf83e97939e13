#!/bin/sh
# Measures dewar on this machine and prints a markdown table: bench/run.sh DEWAR [NAME...]
#
# Each figure stands beside a floor that does the same kernel work, measured in
# interleaved rounds, so that a loaded machine slows both. NAMEs choose parts: run,
# start, memory, burst, ping, network (network-dockerd, network-own), images (images-load,
# images-pull, images-memory), checkpoint (checkpoint-small, checkpoint-podman,
# checkpoint-memory), clone, migrate. Needs root, python3, util-linux, rustc, a static busybox and
# a criu (network, images, migrate: iproute2; images: docker-registry). runc is compared with where
# it is installed; dockerd (with a docker client and curl) and podman where scripts/peers.sh can have them: what
# cannot be compared says so and is left out.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
dewar=$(cd "$(dirname "$1")" && pwd)/$(basename "$1")
shift
[ "$(id -u)" = 0 ] || { echo "bench: not root" >&2; exit 1; }

work=$(mktemp -d /tmp/dewar-bench.XXXXXX)
trap 'rm -rf "$work"' EXIT
trap 'exit 130' INT TERM
criu=$("$here/../scripts/criu.sh" 2>"$work/criu.log") || { cat "$work/criu.log" >&2; criu=; }
peers=
case " ${*:-network images checkpoint} " in
*" network "* | *" network-dockerd "* | *" images "* | *" images-load "* | *" checkpoint "* | *" checkpoint-podman "*)
    peers=$("$here/../scripts/peers.sh") || peers= ;;
esac
rustc -O --edition 2021 -o "$work/load" "$here/load.rs"
# In containers, too.
rustc -O -C target-feature=+crt-static --edition 2021 -o "$work/net" "$here/net.rs"
"$here/../scripts/rootfs.sh" "$work/busybox.tar"

# A mount namespace of its own: CRIU caches what it knows of the kernel in /run only if
# that is a tmpfs (for dewar and for raw criu alike), and no mount of ours can be left.
# A network of its own: bridges and rules are made there, and this machine's stays as it is.
# A pid namespace: daemons and containers end with the benchmark, however that ends; its
# first process is a shell that reaps what has lost its parent.
unshare --mount --net --pid --fork --kill-child --propagation private sh -c '
    mount -t proc proc /proc && mount -t tmpfs tmpfs /run && python3 "$@"
    exit $?' sh \
    "$here/bench.py" --dewar "$dewar" --work "$work" --criu "$criu" --peers "$peers" "$@"
