#!/bin/sh
# A first container: an image from a tar, a run, a look inside, an end.
#
#   examples/first-container.sh ROOTFS.tar      (scripts/rootfs.sh makes one)
#
# Needs `dewar` on PATH and a daemon; DOCKER_HOST says where if not at the usual place.
set -eu
dewar import "$1" example/box
dewar run --rm --network none example/box echo "hello from a container"

dewar run -d --name example-web --network none --memory 64m example/box \
    sh -c 'mkdir /www; echo "a page" > /www/index.html; exec httpd -f -p 127.0.0.1:80 -h /www'
sleep 0.5
dewar ps
dewar exec example-web wget -q -O - http://127.0.0.1/
dewar inspect --format '{{.State.Status}} as pid {{.State.Pid}}' example-web
dewar stop -t 1 example-web
dewar rm example-web
