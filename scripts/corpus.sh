#!/bin/sh
# Writes tests/hostile/corpus: small archives by several writers, from which the fuzz of the
# unpacker starts. scripts/corpus.sh [DIRECTORY]. Run it only to add to the corpus: what is
# kept is what tests replay. Needs root, GNU tar with xattrs, python3.
#
# Archives called refused-* must be refused, all others must be unpacked.
set -eu
here=$(cd "$(dirname "$0")/.." && pwd)
out=${1:-$here/tests/hostile/corpus}
mkdir -p "$out"
work=$(mktemp -d /tmp/dewar-corpus.XXXXXX)
trap 'rm -rf "$work"' EXIT
src=$work/src
mkdir -p "$src/bin" "$src/etc/deep/deeper" "$src/dev"
printf 'content of a file\n' > "$src/bin/tool"
chmod 4755 "$src/bin/tool"
chown 1000:70000 "$src/bin/tool"
ln "$src/bin/tool" "$src/bin/same"
ln -s ../bin/tool "$src/etc/link"
ln -s /etc "$src/etc/absolute"
mkfifo "$src/etc/pipe"
mknod "$src/dev/null" c 1 3
mknod "$src/dev/loop" b 7 0
printf long > "$src/etc/deep/$(printf 'n%.0s' $(seq 120))"
printf 'zwölf' > "$src/etc/zwölf"
python3 -c 'import os, sys
os.setxattr(sys.argv[1], "user.note", b"a=b")
os.setxattr(sys.argv[1], "security.capability", bytes.fromhex("0100000200200000000000000000000000000000"))' "$src/bin/tool"
truncate -s 300000 "$src/etc/sparse"
printf data | dd of="$src/etc/sparse" bs=1 seek=100000 conv=notrunc status=none
find "$src" -exec touch -h -d '2024-05-06 07:08:09.123456789 UTC' {} +

# NAME OPTIONS...
pack() {
    name=$1
    shift
    tar -C "$src" -b1 --sort=name --numeric-owner "$@" -cf "$out/$name.tar" .
}
pack gnu --format=gnu --exclude=./etc/sparse
pack gnu-sparse --format=gnu -S
pack pax --format=pax --exclude=./etc/sparse --xattrs --xattrs-include='*' --pax-option=delete=atime,delete=ctime
pack pax-sparse-0.0 --format=pax -S --sparse-version=0.0 --pax-option=delete=atime,delete=ctime
pack pax-sparse-0.1 --format=pax -S --sparse-version=0.1 --pax-option=delete=atime,delete=ctime
pack pax-sparse-1.0 --format=pax -S --sparse-version=1.0 --pax-option=delete=atime,delete=ctime
rm -f "$src/etc/sparse"
pack oldgnu --format=oldgnu
rm -rf "$src/etc/deep"
pack ustar --format=ustar --exclude='./etc/zw*'
rm -rf "$src/dev" "$src/etc/pipe"
pack v7 --format=v7

python3 - "$out" <<'P'
import io, sys, tarfile

out = sys.argv[1]


class Archive:
    def __init__(self, name, format=tarfile.PAX_FORMAT, **more):
        self.tar = tarfile.open(f"{out}/{name}.tar", "w", format=format, **more)

    def add(self, name, kind=tarfile.REGTYPE, link="", data=b"", **more):
        entry = tarfile.TarInfo(name)
        entry.type, entry.linkname, entry.size, entry.mode, entry.mtime = kind, link, len(data), 0o755, 7
        for key, value in more.items():
            setattr(entry, key, value)
        self.tar.addfile(entry, io.BytesIO(data))
        return self

    def close(self):
        path = self.tar.name
        self.tar.close()
        # tarfile pads to 10 KiB: two empty blocks are an end too.
        with open(path, "rb") as file:
            whole = file.read()
        with open(path, "wb") as file:
            file.write(whole.rstrip(b"\0").ljust((len(whole.rstrip(b"\0")) + 511) // 512 * 512, b"\0") + bytes(1024))


DIR, SYM, LNK = tarfile.DIRTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE
layer = Archive("whiteouts")
for name in (".wh.gone", "dir/.wh.old", "opaque/.wh..wh..opq", "opaque/new", ".wh..wh.plnk", ".wh.dir2"):
    layer.add(name)
layer.add("dir2", DIR).add("dir2/file", data=b"x").close()
Archive("global", pax_headers={"comment": "global", "mtime": "5.5", "SCHILY.xattr.user.g": "v"}).add("a", data=b"a").add("b", DIR).close()
Archive("numbers", tarfile.GNU_FORMAT).add("big", uid=3000000000, gid=4000000000, mtime=-5, data=b"12").add("h", LNK, "big").close()
Archive("replaced").add("a", data=b"1").add("a", DIR).add("a/b", data=b"2").add("a", SYM, "b").add("d/e", data=b"3").add("d", data=b"4").add("s", SYM, "d").add("s", DIR).close()
Archive("names").add("./x//y/./z", data=b"1").add("x/y/z/", DIR).add("\n \t", data=b"2").add("%s\\", data=b"3").close()
Archive("refused-up").add("../outside", data=b"x").close()
Archive("refused-absolute").add("/tmp/outside", data=b"x").close()
Archive("refused-through-link").add("l", SYM, "..").add("l/outside", data=b"x").close()
Archive("refused-through-deep-link").add("d", DIR).add("d/l", SYM, "../..").add("d/l/in/outside", data=b"x").close()
Archive("refused-hard-link").add("l", SYM, "..").add("h", LNK, "l/outside").close()
Archive("refused-hard-link-up").add("h", LNK, "../outside").close()
Archive("refused-whiteout").add("l", SYM, "..").add("l/.wh.outside").close()
Archive("refused-opaque").add("l", SYM, "..").add("l/.wh..wh..opq").close()
Archive("refused-whiteout-dots").add("d/.wh...").close()
Archive("refused-type").add("q", b"Q").close()
Archive("refused-pax-path").add("a", pax_headers={"path": "../outside"}).close()
Archive("refused-pax-link").add("a", LNK, "b", pax_headers={"linkpath": "../outside"}).close()
P
