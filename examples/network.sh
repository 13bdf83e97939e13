#!/bin/sh
# A site and its store on a network of their own: they find each other by name, and the host reaches the site by a port.
#
#   examples/network.sh ROOTFS.tar      (scripts/rootfs.sh makes one)
#
# Needs `dewar` on PATH and a daemon.
set -eu
dewar import "$1" example/box
dewar network create --subnet 10.83.0.0/24 example-front
dewar network create --internal example-back

# The store is on the inner network alone: it can reach nothing but its neighbours.
dewar run -d --name example-store --network example-back --network-alias db example/box \
    sh -c 'mkdir -p /www; echo "from the store" > /www/index.html; exec httpd -f -h /www -p 80'
dewar run -d --name example-site --network example-front --ip 10.83.0.10 -p 127.0.0.1:18083:80 example/box \
    sh -c 'mkdir -p /www; echo "from the site" > /www/index.html; exec httpd -f -h /www -p 80'
sleep 0.5

# A container that runs can be given another network, and find who is there.
dewar network connect example-back example-site
dewar exec example-site wget -qO- http://db/
dewar port example-site
dewar network inspect -f '{{range .Containers}}{{.Name}} {{.IPv4Address}}{{println}}{{end}}' example-front

# From the host, through the published port.
dewar run --rm --network host example/box wget -qO- http://127.0.0.1:18083/

dewar rm -f example-site example-store
dewar network rm example-front example-back
