#!/bin/sh
# Fetches the supervisors that tests/supervisors starts dewar under; prints their directory.
#
#   scripts/supervisors.sh [PREFIX]        PREFIX defaults to /opt/dewar/supervisors
#
#   PREFIX/{runit,s6,openrc,sysv}   each a root directory with Debian 12's packages and the
#                                   libraries they want; tests make their hosts from them
#
# Nothing is installed (scripts/unpack.sh): a host has one init, and keeps it.
set -eu

prefix=${1:-/opt/dewar/supervisors}
suite=bookworm
case $prefix in /*) ;; *) echo "supervisors.sh: prefix \"$prefix\" must be absolute" >&2; exit 2 ;; esac
here=$(cd "$(dirname "$0")" && pwd)

say() { echo "supervisors.sh: $*" >&2; }

# whole DIR: whether what the tests start is in DIR.
whole() {
    for file in runit/usr/bin/runsvdir s6/usr/bin/s6-svscan openrc/sbin/openrc-run sysv/sbin/init sysv/sbin/start-stop-daemon; do
        [ -x "$1/$file" ] || return 1
    done
}
if whole "$prefix"; then
    echo "$prefix"
    exit 0
fi

mkdir -p "$(dirname "$prefix")"
stage=$(mktemp -d "$prefix.XXXXXX")
trap 'rm -rf "$stage"' EXIT
trap 'exit 130' INT TERM
"$here/unpack.sh" "$suite" "$stage/runit" runit '^lib'
"$here/unpack.sh" "$suite" "$stage/s6" s6 '^(lib|execline$)'
"$here/unpack.sh" "$suite" "$stage/openrc" openrc '^lib'
"$here/unpack.sh" "$suite" "$stage/sysv" sysvinit-core '^(lib|sysv-rc$|sysvinit-utils$|startpar$|insserv$)'
"$here/unpack.sh" "$suite" "$stage/sysv" dpkg '^lib'
for name in runit s6 openrc sysv; do
    rm -rf "$stage/$name/usr/share" "$stage/$name/usr/include"
    find "$stage/$name" -type d -name gconv -prune -exec rm -rf {} +
done
chmod 755 "$stage"
whole "$stage" || { say "what was fetched lacks a supervisor"; exit 1; }
rm -rf "$prefix"
mv "$stage" "$prefix"
say "fetched $prefix ($(du -sm "$prefix" | cut -f1) MiB)"
echo "$prefix"
