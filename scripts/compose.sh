#!/bin/sh
# Finds or fetches a Docker Compose; prints its path on stdout.
#
#   scripts/compose.sh [2|1] [PREFIX]        PREFIX defaults to /opt/dewar/composeN
#
#   2   today's, in Go: $COMPOSE, PREFIX/bin/docker-compose or `docker-compose` on PATH,
#       whichever starts here and is version 2 or newer; else Debian sid's. It also
#       serves as a plugin of the docker client when linked as cli-plugins/docker-compose.
#   1   the old one in Python, which many still have: Debian 12's, with the Python and
#       the docker-py of that release, so that it runs on any Debian host.
#
# What is fetched is unpacked into PREFIX (scripts/unpack.sh): the host's packages, and
# its PATH, stay as they are.
set -eu

generation=${1:-2}
prefix=${2:-/opt/dewar/compose$generation}
program=$prefix/bin/docker-compose
unpack=$(dirname "$0")/unpack.sh

say() { echo "compose.sh: $*" >&2; }
die() { say "$*"; exit 1; }

case $generation in 1 | 2) ;; *) echo "compose.sh: unknown version \"$generation\": 2 or 1" >&2; exit 2 ;; esac
case $prefix in /*) ;; *) echo "compose.sh: prefix \"$prefix\" must be absolute" >&2; exit 2 ;; esac

# fault PROGRAM: prints why this one will not do here; nothing if it will.
fault() {
    [ -x "$1" ] || { echo "not there"; return; }
    version=$("$1" version --short 2>/dev/null) || { echo "it does not start"; return; }
    case $generation:${version#v} in
    1:1.* | 2:[2-9]* | 2:[1-9][0-9]*) ;;
    *) echo "it is version \"$version\"" ;;
    esac
}

candidates=$program
[ "$generation" = 1 ] || candidates="${COMPOSE:-} $program $(command -v docker-compose || :)"
for candidate in $candidates; do
    [ -e "$candidate" ] || continue
    reason=$(fault "$candidate")
    [ -n "$reason" ] || { echo "$candidate"; exit 0; }
    say "$candidate will not do: $reason"
done

# Built beside the prefix and renamed, so that an interrupted run leaves no half of one.
mkdir -p "$(dirname "$prefix")"
stage=$(mktemp -d "$prefix.XXXXXX")
trap 'rm -rf "$stage"' EXIT
trap 'exit 130' INT TERM
mkdir "$stage/bin"

# wrapper VARIABLES PROGRAM...: makes bin/docker-compose start PROGRAM through the prefix's own loader.
wrapper() {
    variables=$1
    shift
    loader=$(cd "$stage" && find . -name 'ld-linux*.so.*' | sed 's,^\./,,' | head -n 1)
    [ -n "$loader" ] || die "no program loader came with docker-compose"
    libraries=$(cd "$stage" && find usr lib lib64 -name '*.so.*' 2>/dev/null | sed 's,/[^/]*$,,' | sort -u | sed "s,^,$prefix/," | paste -sd: -)
    printf '#!/bin/sh\nexec %s %s --library-path %s %s "$@"\n' "$variables" "$prefix/$loader" "$libraries" "$*" >"$stage/bin/docker-compose"
    chmod 755 "$stage/bin/docker-compose"
}

if [ "$generation" = 2 ]; then
    "$unpack" sid "$stage" docker-compose
    plugin=usr/libexec/docker/cli-plugins/docker-compose
    [ -x "$stage/$plugin" ] || die "the docker-compose package holds no $plugin"
    if "$stage/$plugin" version >/dev/null 2>&1; then
        ln -s "../$plugin" "$stage/bin/docker-compose"
    else
        # Built for a newer libc than this host's.
        "$unpack" sid "$stage" docker-compose ^lib
        wrapper "" "$prefix/$plugin"
    fi
else
    "$unpack" bookworm "$stage" docker-compose '^(lib|python3)'
    wrapper "env -u PYTHONDONTWRITEBYTECODE PYTHONHOME=$prefix/usr PYTHONPATH=$prefix/usr/lib/python3/dist-packages" \
        "$prefix/usr/bin/python3.11" -W ignore "$prefix/usr/bin/docker-compose"
fi
rm -rf "$stage/usr/share" "$stage/usr/include"
chmod 755 "$stage"
rm -rf "$prefix"
mv "$stage" "$prefix"

reason=$(fault "$program")
[ -z "$reason" ] || die "the docker-compose fetched into $prefix does not work: $reason"
say "installed $program ($("$program" version --short), $(du -sm "$prefix" | cut -f1) MiB)"
echo "$program"
