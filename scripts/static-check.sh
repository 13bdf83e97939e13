#!/bin/sh
# Fails unless FILE is a 64-bit ELF program that needs no loader: no PT_INTERP, no DT_NEEDED.
#
#   scripts/static-check.sh FILE
#
# Reads the program headers with od, so that it needs no binutils. A static PIE has a
# dynamic section (its own relocations), which is why that alone proves nothing.
# Source: elf(5).
set -eu
file=$1
[ -f "$file" ] || { echo "static-check: no file \"$file\"" >&2; exit 1; }

number() { # number OFFSET SIZE: an unsigned little-endian integer of the file
    od -An -v -j "$1" -N "$2" -t "u$2" "$file" | tr -d ' \n'
}

[ "$(od -An -N 5 -t x1 "$file" | tr -d ' \n')" = 7f454c4602 ] || { echo "static-check: \"$file\" is not a 64-bit ELF file" >&2; exit 1; }
table=$(number 32 8) entry=$(number 54 2) count=$(number 56 2)
i=0
while [ "$i" -lt "$count" ]; do
    at=$((table + i * entry))
    case $(number "$at" 4) in
    3) echo "static-check: \"$file\" asks for a loader (PT_INTERP): it is not static" >&2; exit 1 ;;
    2)
        offset=$(number $((at + 8)) 8) size=$(number $((at + 32)) 8)
        # Pairs of (tag, value); DT_NEEDED is tag 1, DT_NULL ends the list.
        od -An -v -j "$offset" -N "$size" -t u8 "$file" | tr -s ' \n' '\n\n' | awk '
            NF { n++; if (n % 2) { tag = $1; if (tag == 0) exit; if (tag == 1) { bad = 1; exit } } }
            END { exit bad }' || { echo "static-check: \"$file\" needs shared libraries (DT_NEEDED): it is not static" >&2; exit 1; }
        ;;
    esac
    i=$((i + 1))
done
bytes=$(wc -c <"$file")
awk -v f="$file" -v b="$bytes" 'BEGIN { printf "%s: static, %d bytes (%.2f MiB)\n", f, b, b / 1048576 }'
