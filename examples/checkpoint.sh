#!/bin/sh
# Freezes a container that counts in memory and writes to its disk, and thaws it twice.
#
#   examples/checkpoint.sh ROOTFS.tar      (scripts/rootfs.sh makes one)
#
# Needs `dewar` on PATH, a daemon, and a CRIU that works here (scripts/criu.sh).
set -eu
dewar import "$1" example/box
dewar run -d --name example-counter --network none example/box \
    sh -c 'i=0; while :; do i=$((i + 1)); echo $i; echo $i > /state; sleep 0.1; done'
sleep 1

# A copy on disk while the original goes on: something to come back to.
dewar checkpoint create --leave-running example-counter before
sleep 0.5
dewar kill example-counter
dewar wait example-counter

# Memory and files come back as they were at the checkpoint, together.
dewar start --checkpoint before example-counter
dewar exec example-counter cat /state

# Frozen for good this time: nothing runs until it is thawed.
dewar checkpoint create example-counter later
dewar checkpoint ls example-counter
dewar start --checkpoint later example-counter
sleep 0.3
dewar logs --tail 3 example-counter
dewar rm -f example-counter
