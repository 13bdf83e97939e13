#!/bin/sh
# Finds or makes a Python that has docker-py 7.1 and Testcontainers; prints its path on stdout.
#
#   scripts/python.sh [PREFIX]        PREFIX defaults to /opt/dewar/python
#
# Order: $PYTHON, PREFIX/bin/python3, each taken only if it has both in the wanted
# versions; else a virtual environment is made in PREFIX, filled by pip. The host's own
# Python gets nothing: Debian 12's docker-py is 5.0, and it has no Testcontainers.
set -eu

# The versions the tests are written for; what they need (websocket-client for attach_socket(ws=True)) comes
# along in any version.
docker_py=7.1.0
testcontainers=4.15.0

prefix=${1:-/opt/dewar/python}
case $prefix in /*) ;; *) echo "python.sh: prefix \"$prefix\" must be absolute" >&2; exit 2 ;; esac

say() { echo "python.sh: $*" >&2; }
die() { say "$*"; exit 1; }

# Whether PROGRAM has the wanted packages; what it lacks is said in its own words on stderr.
has_both() {
    "$1" -c "
from importlib.metadata import version
import docker, testcontainers.core.container, websocket
assert (version('docker'), version('testcontainers')) == ('$docker_py', '$testcontainers')"
}

for candidate in "${PYTHON:-}" "$prefix/bin/python3"; do
    [ -n "$candidate" ] && [ -x "$candidate" ] && has_both "$candidate" 2>/dev/null || continue
    echo "$candidate"
    exit 0
done

# A virtual environment holds its own path: it is made in place, and removed if it does not come to an end.
rm -rf "$prefix"
mkdir -p "$(dirname "$prefix")"
trap '[ $? = 0 ] || rm -rf "$prefix"' EXIT
trap 'exit 130' INT TERM
base=
for candidate in /usr/bin/python3 "$(command -v python3 || :)"; do
    [ -n "$candidate" ] && "$candidate" -c 'import ensurepip, venv' 2>/dev/null || continue
    base=$candidate
    break
done
[ -n "$base" ] || die "no python3 that can make a virtual environment: apt-get install python3-venv"
say "installing docker-py $docker_py and testcontainers $testcontainers into $prefix"
"$base" -m venv "$prefix" >&2 || die "\"$base -m venv $prefix\" failed"
"$prefix/bin/python3" -m pip install --quiet --disable-pip-version-check "docker[websockets]==$docker_py" "testcontainers==$testcontainers" >&2 ||
    die "pip install docker==$docker_py testcontainers==$testcontainers failed"
has_both "$prefix/bin/python3" || die "what pip installed into $prefix does not work"
echo "$prefix/bin/python3"
