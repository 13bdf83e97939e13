#!/bin/sh
# Finds or installs a CRIU that works on this kernel; prints its path on stdout.
#
#   scripts/criu.sh [PREFIX]        PREFIX defaults to /opt/dewar/criu
#
# Order: $CRIU, PREFIX/bin/criu, `criu` on PATH, each taken only if it dumps and
# restores a real process here; else Debian sid's criu with its own libraries is
# unpacked into PREFIX (scripts/unpack.sh: nothing of the host is upgraded), and the
# wrapper PREFIX/bin/criu starts criu through PREFIX's own loader.
#
# Why not simply the distribution's: Debian 12's 3.17 does not start on kernel 6.18
# (vdso), and nothing before 4.2 can dump an inet socket on kernel 6.16 or newer.
# Needs root (CRIU does) and, for the download, a Debian host with its keyring.
set -eu

prefix=${1:-/opt/dewar/criu}
wrapper=$prefix/bin/criu
case $prefix in /*) ;; *) echo "criu.sh: prefix \"$prefix\" must be absolute" >&2; exit 2 ;; esac

say() { echo "criu.sh: $*" >&2; }
die() { say "$*"; exit 1; }

[ "$(id -u)" = 0 ] || die "not root: CRIU dumps and restores processes only for root"

work=$(mktemp -d "${TMPDIR:-/tmp}/dewar-criu.XXXXXX")
victim=
had_kdat=0
[ -e /run/criu.kdat.tmp ] && had_kdat=1
clean() {
    [ -z "$victim" ] || kill -9 "$victim" 2>/dev/null || :
    # On a host whose /run is no tmpfs CRIU leaves this behind, and its own
    # create-exclusive then fails on every later start.
    [ "$had_kdat" = 1 ] || rm -f /run/criu.kdat.tmp
    rm -rf "$work"
}
trap clean EXIT
trap 'exit 130' INT TERM

# at_least HAVE WANT: compares "major.minor" versions.
at_least() {
    awk -v a="$1" -v b="$2" 'BEGIN { split(a, x, /[^0-9]+/); split(b, y, /[^0-9]+/)
        exit !(x[1]+0 > y[1]+0 || (x[1]+0 == y[1]+0 && x[2]+0 >= y[2]+0)) }'
}

# round_trip CRIU NAME COMMAND...: dumps and restores COMMAND; the restored process must live.
round_trip() {
    criu=$1 name=$2
    shift 2
    images=$work/$name
    rm -rf "$images"
    mkdir -p "$images"
    # A session and stdio of its own: CRIU refuses a tree tied to a terminal.
    setsid "$@" </dev/null >/dev/null 2>&1 &
    victim=$!
    sleep 0.2
    kill -0 "$victim" 2>/dev/null || { victim=; echo "\"$*\" did not start"; return 1; }
    if ! "$criu" dump -t "$victim" -D "$images" -o dump.log --network-lock skip >/dev/null 2>&1; then
        echo "dump of \"$*\": $(grep -a Error "$images/dump.log" 2>/dev/null | grep -v RLIMIT_NOFILE | tail -n 1)"
        return 1
    fi
    wait "$victim" 2>/dev/null || :
    victim=
    if ! "$criu" restore -D "$images" -o restore.log -d --pidfile "$images/pid" --network-lock skip >/dev/null 2>&1; then
        echo "restore of \"$*\": $(grep -a Error "$images/restore.log" 2>/dev/null | grep -v RLIMIT_NOFILE | tail -n 1)"
        return 1
    fi
    victim=$(cat "$images/pid")
    kill -0 "$victim" 2>/dev/null || { victim=; echo "restored \"$*\" is gone"; return 1; }
    kill -9 "$victim" 2>/dev/null
    victim=
}

# fault CRIU: prints why this criu will not do here; nothing if it will.
fault() {
    [ -x "$1" ] || { echo "not there"; return; }
    version=$("$1" --version 2>/dev/null | sed -n 's/^Version: *//p')
    [ -n "$version" ] || { echo "\"$1 --version\" prints no version"; return; }
    if at_least "$(uname -r)" 6.16 && ! at_least "$version" 4.2; then
        echo "version $version cannot dump inet sockets on kernel $(uname -r): 4.2 or newer is needed"
        return
    fi
    at_least "$version" 3.17 || { echo "version $version is older than 3.17"; return; }
    "$1" check >"$work/check" 2>&1 || { echo "\"$1 check\": $(grep -a Error "$work/check" | tail -n 1)"; return; }
    round_trip "$1" process sleep 1000 || return 0
    mkdir -p "$work/none"
    if command -v busybox >/dev/null && busybox --list 2>/dev/null | grep -qx httpd; then
        # A listening socket is what tells 4.2 from everything older on new kernels.
        round_trip "$1" listener busybox httpd -f -p "127.0.0.1:$((20000 + $$ % 20000))" -h "$work/none" || return 0
    fi
}

on_path=$(command -v criu || :)
for candidate in "${CRIU:-}" "$wrapper" "$on_path"; do
    [ -n "$candidate" ] && [ -e "$candidate" ] || continue
    reason=$(fault "$candidate")
    if [ -z "$reason" ]; then
        say "$candidate ($("$candidate" --version | sed -n 's/^Version: *//p')) dumps and restores on kernel $(uname -r)"
        echo "$candidate"
        exit 0
    fi
    say "$candidate will not do: $reason"
done

# ---- fetch from sid -------------------------------------------------------------------

# Built beside the prefix and renamed, so that an interrupted run leaves no half of one.
mkdir -p "$(dirname "$prefix")"
stage=$(mktemp -d "$prefix.XXXXXX")
# Only shared libraries are followed: criu's Python tools and their interpreter are not needed.
"$(dirname "$0")/unpack.sh" sid "$stage" criu ^lib || { rm -rf "$stage"; die "install criu 4.2 or newer by this host's own means, and set CRIU to its path"; }
rm -rf "$stage/usr/share" "$stage/usr/include"

program=$(cd "$stage" && find usr/sbin usr/bin -name criu -type f | head -n 1)
[ -n "$program" ] || die "the criu package holds no program named criu"
loader=$(cd "$stage" && find . -name 'ld-linux*.so.*' | sed 's,^\./,,' | head -n 1)
[ -n "$loader" ] || die "the libc6 package holds no program loader"
libraries=$(cd "$stage" && find usr lib lib64 \( -name '*.so' -o -name '*.so.*' \) 2>/dev/null | sed 's,/[^/]*$,,; s,^,/,' | sort -u | grep -v '/gconv' |
    sed "s,^,$prefix," | paste -sd: -)
mkdir -p "$stage/bin"
printf '#!/bin/sh\nexec %s --library-path %s %s "$@"\n' "$prefix/$loader" "$libraries" "$prefix/$program" >"$stage/bin/criu"
chmod 755 "$stage" "$stage/bin/criu"
rm -rf "$prefix"
mv "$stage" "$prefix"

reason=$(fault "$wrapper")
[ -z "$reason" ] || die "the criu fetched into $prefix does not work on kernel $(uname -r): $reason"
say "installed $wrapper ($("$wrapper" --version | sed -n 's/^Version: *//p'), $(du -sm "$prefix" | cut -f1) MiB)"
echo "$wrapper"
