#!/bin/sh
# The README's first command: a container is started, frozen with its memory, thawed, and copied while it runs.
#
#   scripts/demo.sh DEWAR
#
# Runs a private daemon in a temporary directory; nothing of it is left afterwards,
# whatever happens on the way.
set -eu

dewar=$(cd "$(dirname "$1")" && pwd)/$(basename "$1")
here=$(cd "$(dirname "$0")" && pwd)
dir=$(mktemp -d /tmp/dewar-demo.XXXXXX)
daemon=

step() { printf '\n\033[1m%s\033[0m\n' "$*"; }
# Shows a command as a user would type it, then runs it.
show() {
    printf '$ dewar %s\n' "$*"
    "$dewar" "$@"
}
fail() {
    echo "demo: $*" >&2
    [ ! -s "$dir/daemon.log" ] || { echo "demo: the daemon's log ends:" >&2; tail -n 20 "$dir/daemon.log" >&2; }
    exit 1
}

clean() {
    status=$?
    trap - EXIT INT TERM
    if [ -n "$daemon" ]; then
        "$dewar" rm -f counter copy-1 copy-2 copy-3 >/dev/null 2>&1 || :
        kill "$daemon" 2>/dev/null || :
        wait "$daemon" 2>/dev/null || :
    fi
    # Deepest first; normally the daemon has left none.
    awk -v dir="$dir/" 'index($5, dir) == 1 { print $5 }' /proc/self/mountinfo | sort -r | while read -r mount; do
        echo "demo: left mounted: $mount" >&2
        umount "$mount" 2>/dev/null || umount -l "$mount"
    done
    rm -rf "$dir"
    [ "$status" = 0 ] && printf '\nEverything was cleaned up. Now see README.md.\n'
    exit "$status"
}
trap clean EXIT
trap 'exit 130' INT TERM

criu=$("$here/criu.sh")
"$here/rootfs.sh" "$dir/busybox.tar"

step "1. A private daemon (its state is in $dir)"
export DOCKER_HOST="unix://$dir/dewar.sock"
unset DOCKER_CONTEXT DOCKER_TLS_VERIFY DOCKER_API_VERSION
echo "\$ dewar daemon --data-root $dir/data --exec-root $dir/run --criu $criu -H $DOCKER_HOST &"
"$dewar" daemon --data-root "$dir/data" --exec-root "$dir/run" --criu "$criu" -H "$DOCKER_HOST" >"$dir/daemon.log" 2>&1 &
daemon=$!
tries=0
until "$dewar" version >/dev/null 2>&1; do
    kill -0 "$daemon" 2>/dev/null || fail "the daemon did not start"
    tries=$((tries + 1))
    [ "$tries" -lt 100 ] || fail "the daemon does not answer"
    sleep 0.1
done

step "2. An image, made of one static busybox"
show import "$dir/busybox.tar" busybox
show images

step "3. A container that counts, in memory only"
# shellcheck disable=SC2016
show run -d --name counter --network none busybox sh -c 'i=1; while :; do echo "count $i"; i=$((i + 1)); sleep 0.2; done'
sleep 1.5
show logs counter

step "4. Freeze: its memory goes to disk, its processes end"
show checkpoint create counter frozen
show ps -a
"$dewar" ps -a | grep -q 'Exited' || fail "the container should show as Exited"
[ -z "$("$dewar" ps -q)" ] || fail "the container still runs"
before=$("$dewar" logs counter | sed -n 's/^count //p' | tail -n 1)
[ -n "$before" ] || fail "the container counted nothing"
echo "The last line before it froze: count $before"
sleep 1
[ "$("$dewar" logs counter | sed -n 's/^count //p' | tail -n 1)" = "$before" ] || fail "it counts although frozen"

step "5. Thaw: it goes on where it was"
show start --checkpoint frozen counter
sleep 1.2
show logs --tail 5 counter
show ps

# Not one number lost, repeated or begun again.
"$dewar" logs counter | awk '/^count / { if ($2 != ++n) { print "expected " n ", got " $2; exit 1 } }' || fail "the count has a gap"
after=$("$dewar" logs counter | sed -n 's/^count //p' | tail -n 1)
[ "$after" -gt "$before" ] || fail "the count did not go on after $before"
printf '\nFrozen after %s, thawed, and now at %s: no number lost, none repeated.\n' "$before" "$after"

step "6. Clone: three more of it, with its memory, while it runs"
show clone --count 3 --name copy counter
sleep 1
show ps
for number in 1 2 3; do
    first=$("$dewar" logs "copy-$number" | sed -n 's/^count //p' | head -n 1)
    [ -n "$first" ] && [ "$first" -gt "$after" ] || fail "copy-$number did not go on where counter was: ${first:-it says nothing}"
done
printf '\nEach copy went on counting where counter was.\n'
