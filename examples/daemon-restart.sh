#!/bin/sh
# Kills the daemon under a running container; the container, its output and its exit code survive.
#
#   examples/daemon-restart.sh ROOTFS.tar      (scripts/rootfs.sh makes one)
#
# Needs `dewar` on PATH and root; starts a daemon of its own in a temporary directory.
set -eu
dir=$(mktemp -d /tmp/dewar-example.XXXXXX)
export DOCKER_HOST="unix://$dir/dewar.sock"
daemon=
trap 'dewar rm -f example-job > /dev/null 2>&1 || :; kill $daemon 2> /dev/null || :; wait || :; rm -rf "$dir"' EXIT
start() {
    dewar daemon --data-root "$dir/data" --exec-root "$dir/run" -H "$DOCKER_HOST" 2> "$dir/log" &
    daemon=$!
    until dewar version > /dev/null 2>&1; do sleep 0.05; done
}

start
dewar import "$1" example/box
dewar run -d --name example-job --network none example/box \
    sh -c 'for i in 1 2 3 4 5 6 7 8; do echo "step $i"; sleep 0.2; done; exit 3'
sleep 0.5
echo "killing the daemon; the job does not notice"
kill -9 "$daemon"
wait "$daemon" || :
sleep 2
start
dewar logs example-job
test "$(dewar wait example-job)" = 3
echo "the job ended with 3 while nobody watched"
