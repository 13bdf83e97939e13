#!/bin/sh
# Writes a root filesystem made of busybox-static as a tar: scripts/rootfs.sh OUT.tar
#
# Every applet is a link to /bin/busybox; root and nobody exist; nothing else is there.
set -eu
out=$1
busybox=
for candidate in "${BUSYBOX:-}" /bin/busybox /usr/bin/busybox "$(command -v busybox || :)"; do
    if [ -n "$candidate" ] && "$(dirname "$0")/static-check.sh" "$candidate" >/dev/null 2>&1; then
        busybox=$candidate
        break
    fi
done
[ -n "$busybox" ] || { echo "rootfs.sh: no static busybox: apt-get install busybox-static" >&2; exit 1; }

dir=$(mktemp -d "${TMPDIR:-/tmp}/dewar-rootfs.XXXXXX")
trap 'rm -rf "$dir"' EXIT
trap 'exit 130' INT TERM
chmod 755 "$dir"
cd "$dir"
mkdir -p bin dev etc home proc root sys tmp usr var/tmp
chmod 1777 tmp var/tmp
chmod 700 root
cp "$busybox" bin/busybox
chmod 755 bin/busybox
for applet in $(bin/busybox --list); do
    [ "$applet" = busybox ] || ln -s busybox "bin/$applet"
done
printf 'root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/sh\nuser:x:1000:1000:user:/home:/bin/sh\n' >etc/passwd
printf 'root:x:0:\nstaff:x:50:user\nnogroup:x:65534:\nuser:x:1000:\n' >etc/group
cd - >/dev/null
tar --numeric-owner --owner=0 --group=0 --sort=name --mtime=@0 -C "$dir" -cf "$out" .
