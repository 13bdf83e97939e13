#!/bin/sh
# Installs what dewar's demo or its tests need and the host lacks; says what it does.
#
#   scripts/deps.sh [build|run|test]
#
#   build  checks the Rust toolchain (never installs one)
#   run    build, busybox-static and a CRIU that works here (scripts/criu.sh)
#   test   run, a stock docker client, docker-py and Testcontainers (scripts/python.sh),
#          Docker Compose 2 and 1 (scripts/compose.sh), a virtual machine (scripts/vm.sh),
#          supervisors (scripts/supervisors.sh), podman and checkpointctl (scripts/podman.sh), PostgreSQL,
#          sshd, ssh, iproute2, nftables, iptables, curl, openssl, tar, runc, crun, skopeo, umoci, docker-registry, xz,
#          bzip2, zstd, age, musl-gcc, mkfs.ext4 and strip
#
# A docker client already on PATH is used as it is. Debian's package would start a
# daemon of its own, so only the client program is taken out of it, into
# /opt/dewar/docker; the registry out of its own, for the same reason. Everything
# else that is no package of the host goes into directories of /opt/dewar, too.
# Nothing is upgraded or removed.
set -eu

here=$(cd "$(dirname "$0")" && pwd)
root=$(dirname "$here")
what=${1:-run}
case $what in build | run | test) ;; *) echo "deps.sh: unknown set \"$what\": build, run or test" >&2; exit 2 ;; esac

say() { echo "deps.sh: $*" >&2; }
die() { say "$*"; exit 1; }

# ---- Rust -----------------------------------------------------------------------------

wanted=$(sed -n 's/^rust-version *= *"\(.*\)"/\1/p' "$root/Cargo.toml")
command -v cargo >/dev/null || die "no cargo on PATH: install Rust $wanted or newer (https://rustup.rs, or your distribution's rustc and cargo)"
have=$(cargo --version | sed 's/^cargo \([0-9]*\.[0-9]*\).*/\1/')
awk -v a="$have" -v b="$wanted" 'BEGIN { split(a, x, "."); split(b, y, "."); exit !(x[1] > y[1] || (x[1] == y[1] && x[2] >= y[2])) }' ||
    die "cargo $have is too old: dewar needs Rust $wanted or newer (rustup update)"
command -v cc >/dev/null || missing_cc=1
[ "$what" = build ] && [ -z "${missing_cc:-}" ] && exit 0

if [ "$what" = test ]; then
    # rustup's minimal profile has neither.
    for part in fmt:rustfmt clippy:clippy; do
        cargo "${part%%:*}" --version >/dev/null 2>&1 && continue
        command -v rustup >/dev/null || die "no cargo-${part%%:*}: install your distribution's ${part#*:}"
        say "rustup component add ${part#*:}"
        rustup component add "${part#*:}" >&2 || die "rustup component add ${part#*:} failed"
    done
fi

# ---- packages -------------------------------------------------------------------------

[ "$(id -u)" = 0 ] || die "not root: containers, and installing what is missing, need root"

packages=
need() { # need PROGRAM PACKAGE
    command -v "$1" >/dev/null || packages="$packages $2"
}
# rustc links through cc and the C library's static archive
need cc gcc
[ -n "$(cc -print-file-name=libc.a 2>/dev/null | grep / || :)" ] || packages="$packages libc6-dev"
if [ "$what" != build ]; then
    need tar tar
    # The static build: a copy of it must run in an image that has no loader.
    dpkg -s busybox-static 2>/dev/null | grep -q '^Status: install ok installed' || packages="$packages busybox-static"
fi
if [ "$what" = test ]; then
    need python3 python3
    need runc runc
    need crun crun
    need skopeo skopeo
    need umoci umoci
    # Archives of every compression
    need xz xz-utils
    need bzip2 bzip2
    need zstd zstd
    # Encrypted archives go both ways.
    need age age
    need curl curl
    need openssl openssl
    need ssh openssh-client
    need unshare util-linux
    # Hosts around a daemon, and rules that are not dewar's.
    for pair in ip:iproute2 nft:nftables iptables-nft:iptables iptables-legacy:iptables; do
        [ -x "/usr/sbin/${pair%%:*}" ] || need "${pair%%:*}" "${pair#*:}"
    done
    # Its launcher for socket activation; nothing of it is started.
    need systemd-socket-activate systemd
    [ -x /usr/sbin/mkfs.ext4 ] || need mkfs.ext4 e2fsprogs
    # Alpine's resolver is asked for names, too.
    need musl-gcc musl-tools
    need strip binutils
    # One that containers see by the host's /usr.
    [ -x /usr/bin/python3 ] || packages="$packages python3"
    need make make
    # scripts/python.sh makes a virtual environment with whichever can.
    /usr/bin/python3 -c 'import ensurepip' 2>/dev/null || python3 -c 'import ensurepip' 2>/dev/null || packages="$packages python3-venv"
fi

apt_updated=
apt_update() {
    [ -n "$apt_updated" ] || apt-get update -qq || die "apt-get update failed"
    apt_updated=1
}

if [ -n "$packages" ]; then
    command -v apt-get >/dev/null || die "no apt-get on this host: install$packages by its own means"
    say "installing$packages"
    apt_update
    # shellcheck disable=SC2086
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $packages >&2 || die "apt-get install$packages failed"
fi
[ "$what" = build ] && exit 0

if [ "$what" = test ] && ! command -v docker >/dev/null && [ ! -x /opt/dewar/docker/bin/docker ]; then
    package=docker.io
    apt_update
    [ -z "$(apt-cache policy docker-cli | grep 'Candidate: [0-9]')" ] || package=docker-cli
    say "taking the docker client out of Debian's $package into /opt/dewar/docker (its daemon is not installed)"
    work=$(mktemp -d)
    (cd "$work" && apt-get download -qq "$package" && dpkg -x ./*.deb x) >&2 || { rm -rf "$work"; die "fetching $package failed"; }
    mkdir -p /opt/dewar/docker/bin
    mv "$work/x/usr/bin/docker" /opt/dewar/docker/bin/docker
    rm -rf "$work"
fi

if [ "$what" = test ] && ! command -v docker-registry >/dev/null && [ ! -x /opt/dewar/registry/bin/docker-registry ]; then
    apt_update
    say "taking the registry out of Debian's docker-registry into /opt/dewar/registry (its service is not installed)"
    work=$(mktemp -d)
    (cd "$work" && apt-get download -qq docker-registry && dpkg -x ./*.deb x) >&2 || { rm -rf "$work"; die "fetching docker-registry failed"; }
    mkdir -p /opt/dewar/registry/bin
    mv "$work/x/usr/bin/docker-registry" /opt/dewar/registry/bin/docker-registry
    rm -rf "$work"
fi

if [ "$what" = test ] && [ ! -x /opt/dewar/postgres/usr/lib/postgresql/15/bin/postgres ]; then
    say "unpacking Debian's PostgreSQL with its libraries into /opt/dewar/postgres (nothing of it is installed)"
    rm -rf /opt/dewar/postgres
    # All libraries but LLVM, which is half of it and only compiles queries.
    "$here/unpack.sh" bookworm /opt/dewar/postgres.new postgresql-15 '^(lib([^l]|l[^l])|zlib1g|tzdata|postgresql-client-15)'
    mv /opt/dewar/postgres.new /opt/dewar/postgres
fi

if [ "$what" = test ] && [ ! -x /usr/sbin/sshd ] && [ ! -x /opt/dewar/sshd/usr/sbin/sshd ]; then
    say "unpacking Debian's openssh-server into /opt/dewar/sshd (its service is not installed)"
    rm -rf /opt/dewar/sshd.new
    "$here/unpack.sh" "$(. /etc/os-release && echo "${VERSION_CODENAME:-sid}")" /opt/dewar/sshd.new openssh-server '^libwrap' ||
        { rm -rf /opt/dewar/sshd.new; die "fetching openssh-server failed"; }
    mv /opt/dewar/sshd.new /opt/dewar/sshd
fi

if [ "$what" = test ]; then
    "$here/python.sh" >/dev/null
    "$here/compose.sh" 2 >/dev/null
    "$here/compose.sh" 1 >/dev/null
    "$here/vm.sh" >/dev/null
    "$here/supervisors.sh" >/dev/null
    "$here/podman.sh" >/dev/null
fi
"$here/criu.sh" >/dev/null
