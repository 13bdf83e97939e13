#!/bin/sh
# Finds or fetches what scripts/boot.sh starts a virtual machine with: QEMU and a kernel;
# prints the directory they are in on stdout.
#
#   scripts/vm.sh [PREFIX]        PREFIX defaults to /opt/dewar/vm
#
#   PREFIX/bin/qemu         starts Debian's QEMU for x86 with libraries of its own
#   PREFIX/vmlinuz          Debian's kernel for clouds: small, with the usual virtual devices
#   PREFIX/modules/NAME.ko  those of its modules that a host for containers needs
#
# Both come from Debian 12 (scripts/unpack.sh): nothing is installed on the host, and the
# host's /boot is left alone. Needs a Debian host with its keyring.
set -eu

prefix=${1:-/opt/dewar/vm}
suite=bookworm
# In the order in which they load: the disk, the layers, and what CRIU asks for.
modules="virtio virtio_ring virtio_pci_legacy_dev virtio_pci_modern_dev virtio_pci virtio_blk overlay unix_diag inet_diag tcp_diag udp_diag raw_diag af_packet_diag netlink_diag libcrc32c nfnetlink nf_tables nf_defrag_ipv4 nf_defrag_ipv6 nf_conntrack nf_conntrack_netlink"
case $prefix in /*) ;; *) echo "vm.sh: prefix \"$prefix\" must be absolute" >&2; exit 2 ;; esac

say() { echo "vm.sh: $*" >&2; }
die() { say "$*"; exit 1; }

# fault DIR: prints what is wrong with the machine in DIR; nothing if it is whole.
fault() {
    "$1/bin/qemu" --version >/dev/null 2>&1 || { echo "no $1/bin/qemu that starts"; return; }
    [ -s "$1/vmlinuz" ] || { echo "no $1/vmlinuz"; return; }
    for module in $modules; do
        [ -s "$1/modules/$module.ko" ] || { echo "no $1/modules/$module.ko"; return; }
    done
}

if [ -e "$prefix" ]; then
    reason=$(fault "$prefix")
    if [ -z "$reason" ]; then
        say "$prefix ($("$prefix/bin/qemu" --version | sed -n '1s/ (.*//p'), Linux $(cat "$prefix/release"))"
        echo "$prefix"
        exit 0
    fi
    say "$prefix will not do: $reason"
fi
[ "$(uname -m)" = x86_64 ] || die "only x86_64 machines are emulated, this is $(uname -m)"

# Built beside the prefix and renamed, so that an interrupted run leaves no half of one.
mkdir -p "$(dirname "$prefix")"
stage=$(mktemp -d "$prefix.XXXXXX")
work=$(mktemp -d "${TMPDIR:-/tmp}/dewar-vm.XXXXXX")
trap 'rm -rf "$stage" "$work"' EXIT
trap 'exit 130' INT TERM
here=$(cd "$(dirname "$0")" && pwd)

"$here/unpack.sh" "$suite" "$work/qemu" qemu-system-x86 '^(lib|qemu-system-(common|data)$|seabios$|zlib1g)' ||
    die "fetching QEMU failed"
"$here/unpack.sh" "$suite" "$work/kernel" linux-image-cloud-amd64 '^linux-image' || die "fetching the kernel failed"

# ---- QEMU -----------------------------------------------------------------------------

# Of the hundred libraries that its displays and sound cards would want, those it is linked with.
root=$work/qemu
loader=$(find "$root" -name 'ld-linux*.so.*' | head -n 1)
[ -n "$loader" ] || die "the libc6 package holds no program loader"
places=$(find "$root" -name '*.so.*' | sed 's,/[^/]*$,,' | sort -u | paste -sd:)
mkdir -p "$stage/lib" "$stage/share" "$stage/bin" "$stage/modules"
cp -L "$loader" "$stage/lib/loader"
cp "$root/usr/bin/qemu-system-x86_64" "$stage/lib/"
for wanted in "$root/usr/bin/qemu-system-x86_64" "$root"/usr/lib/*/qemu/accel-tcg-x86_64.so; do
    LD_TRACE_LOADED_OBJECTS=1 "$loader" --inhibit-cache --library-path "$places" "$wanted" | awk '$2 == "=>" { print $3 }'
done | sort -u >"$work/libraries"
while read -r library; do
    case $library in "$root"/*) cp -L "$library" "$stage/lib/" ;; *) die "a library of QEMU was not fetched: $library" ;; esac
done <"$work/libraries"
cp "$root"/usr/lib/*/qemu/accel-tcg-x86_64.so "$stage/lib/"
cp -L "$root/usr/share/seabios/bios-256k.bin" "$root/usr/share/qemu/linuxboot_dma.bin" \
    "$root/usr/share/qemu/kvmvapic.bin" "$stage/share/"
cat >"$stage/bin/qemu" <<WRAPPER
#!/bin/sh
export QEMU_MODULE_DIR=$prefix/lib
exec $prefix/lib/loader --library-path $prefix/lib $prefix/lib/qemu-system-x86_64 -L $prefix/share "\$@"
WRAPPER
chmod 755 "$stage" "$stage/bin/qemu"

# ---- the kernel -----------------------------------------------------------------------

kernel=$(find "$work/kernel/boot" -name 'vmlinuz-*' | head -n 1)
[ -n "$kernel" ] || die "the kernel's package holds no kernel"
cp "$kernel" "$stage/vmlinuz"
echo "${kernel##*/vmlinuz-}" >"$stage/release"
for module in $modules; do
    file=$(find "$work/kernel/lib/modules" -name "$module.ko" -o -name "$(echo "$module" | tr _ -).ko" | head -n 1)
    [ -n "$file" ] || die "the kernel ${kernel##*/} has no module $module"
    cp "$file" "$stage/modules/$module.ko"
done
echo "$modules" >"$stage/modules/order"

rm -rf "$prefix"
mv "$stage" "$prefix"
reason=$(fault "$prefix")
[ -z "$reason" ] || die "what was fetched into $prefix does not work: $reason"
say "fetched $prefix ($("$prefix/bin/qemu" --version | sed -n '1s/ (.*//p'), Linux $(cat "$prefix/release"), $(du -sm "$prefix" | cut -f1) MiB)"
echo "$prefix"
