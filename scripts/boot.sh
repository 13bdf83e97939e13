#!/bin/sh
# Boots a minimal host with dewar on it in a virtual machine, with a shell on its console.
#
#   scripts/boot.sh DEWAR [DIR]
#
#   DEWAR   the static binary
#   DIR     keeps the host's disk: made at the first boot, used again by the next ones;
#           without it the host lasts for one boot
#
# The host is BusyBox, an inittab with the lines of contrib/busybox/inittab, and DEWAR; with
# CRIU if scripts/criu.sh has put one into a prefix ($CRIU_PREFIX, /opt/dewar/criu; "none"
# for a host without). /root/busybox.tar is an image to import. `poweroff` ends it, Ctrl-A X
# pulls the plug. The processor is emulated, so that it works the same everywhere; nothing
# of the machine below is touched but DIR and a temporary directory.
set -eu

case $# in 1 | 2) ;; *) echo "usage: boot.sh DEWAR [DIR]" >&2; exit 2 ;; esac
dewar=$1
here=$(cd "$(dirname "$0")" && pwd)
criu=${CRIU_PREFIX:-/opt/dewar/criu}

die() { echo "boot.sh: $*" >&2; exit 1; }

[ -x "$dewar" ] || die "no program $dewar"
"$here/static-check.sh" "$dewar" >/dev/null || die "$dewar is not static: a minimal host has no libraries for it"
PATH=$PATH:/usr/sbin:/sbin
command -v mkfs.ext4 >/dev/null || die "no mkfs.ext4: apt-get install e2fsprogs"
vm=$("$here/vm.sh" 2>/dev/null) || vm=$("$here/vm.sh") || die "no virtual machine"

keep=${2:-}
dir=${keep:-$(mktemp -d "${TMPDIR:-/tmp}/dewar-boot.XXXXXX")}
clean() {
    [ -n "$keep" ] || rm -rf "$dir"
    rm -rf "$dir/root" "$dir/early" "$dir/partial.img"
}
trap clean EXIT
trap 'exit 130' INT TERM
mkdir -p "$dir"

# ---- the disk -------------------------------------------------------------------------

make_disk() {
    root=$dir/root
    rm -rf "$root"
    mkdir "$root"
    "$here/rootfs.sh" "$dir/busybox.tar"
    tar -xf "$dir/busybox.tar" -C "$root"
    mkdir -p "$root/sbin" "$root/run" "$root/usr/local/bin" "$root/var/log" "$root/etc/init.d"
    mv "$dir/busybox.tar" "$root/root/busybox.tar"
    # What debuggers want is most of a debug build, and nobody debugs in there.
    strip -o "$root/usr/local/bin/dewar" "$dewar" 2>/dev/null || cp "$dewar" "$root/usr/local/bin/dewar"
    chmod 755 "$root/usr/local/bin/dewar"
    for program in init poweroff reboot halt; do ln -s ../bin/busybox "$root/sbin/$program"; done
    if [ -d "$criu" ]; then
        mkdir -p "$root$(dirname "$criu")"
        cp -a "$criu" "$root$criu"
    fi

    # The daemon's lines are the shipped ones; the rest is what any such host has. BusyBox
    # init keeps how a process ended to itself: `watched` says it on the console.
    {
        echo '::sysinit:/etc/init.d/rcS'
        sed -n 's,^null::respawn:,&/sbin/watched ,p; /^null::shutdown:/p' "$here/../contrib/busybox/inittab"
        echo 'ttyS0::respawn:-/bin/sh'
        echo '::shutdown:/etc/init.d/rcK'
    } >"$root/etc/inittab"
    cat >"$root/sbin/watched" <<'WATCHED'
#!/bin/sh
"$@" >>/var/log/dewar.log 2>&1
echo "init: $1 ended with $?" >/dev/console
WATCHED
    cat >"$root/etc/init.d/rcS" <<'START'
#!/bin/sh
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mkdir -p /dev/pts /dev/shm
mount -t devpts devpts /dev/pts
mount -t tmpfs tmpfs /run
hostname minimal
ip link set lo up
START
    cat >"$root/etc/init.d/rcK" <<'STOP'
#!/bin/sh
echo "init: left are $(grep -c dewar /proc/mounts) mounts and:" $(find /run -name 'dewar*')
umount -a -r 2>/dev/null
STOP
    chmod 755 "$root/sbin/watched" "$root/etc/init.d/rcS" "$root/etc/init.d/rcK"
    printf 'export PATH=/bin:/sbin:/usr/local/bin PS1="minimal# "\n' >"$root/etc/profile"
    rm -f "$dir/partial.img"
    mkfs.ext4 -q -F -E root_owner=0:0 -d "$root" "$dir/partial.img" 1G >"$dir/mkfs.log" 2>&1 ||
        { cat "$dir/mkfs.log" >&2; die "making the disk failed"; }
    rm -rf "$root" "$dir/mkfs.log"
    mv "$dir/partial.img" "$dir/disk.img"
}
[ -e "$dir/disk.img" ] || make_disk

# ---- what the kernel starts first -------------------------------------------------------

# It has the modules, and goes over to the disk: there is no pivot_root from an initramfs.
early=$dir/early
rm -rf "$early"
mkdir -p "$early/bin" "$early/dev" "$early/disk"
cp "$vm"/modules/* "$early/"
"$here/rootfs.sh" "$dir/early.tar"
tar -xf "$dir/early.tar" -C "$early" ./bin/busybox
rm -f "$dir/early.tar"
cat >"$early/init" <<'INIT'
#!/bin/busybox sh
/bin/busybox mount -t devtmpfs devtmpfs /dev
for module in $(/bin/busybox cat /order); do
    /bin/busybox insmod "/$module.ko"
done
/bin/busybox mount -t ext4 /dev/vda /disk
/bin/busybox mount -o move /dev /disk/dev
exec /bin/busybox switch_root /disk /sbin/init
INIT
chmod 755 "$early/init"
(cd "$early" && find . | bin/busybox cpio -o -H newc 2>/dev/null) >"$dir/initramfs"
rm -rf "$early"

# ---- the machine ----------------------------------------------------------------------

serial=stdio
[ ! -t 0 ] || serial=mon:stdio
set -- "$vm/bin/qemu" -nodefaults -no-user-config -no-reboot -display none -serial "$serial" \
    -machine pc -accel tcg -cpu max -smp 1 -m 512 \
    -kernel "$vm/vmlinuz" -initrd "$dir/initramfs" -append "console=ttyS0 loglevel=2 panic=-1" \
    -drive "file=$dir/disk.img,format=raw,if=virtio"
# With a directory that is kept, the caller's process is the machine.
[ -z "$keep" ] || { clean; trap - EXIT INT TERM; exec "$@"; }
"$@"
