#!/bin/sh
# Unpacks a package of another Debian release into a directory; installs and upgrades nothing.
#
#   scripts/unpack.sh SUITE DIR PACKAGE [FOLLOW]
#
#   PACKAGE  its name; several in one word, with spaces between them
#   FOLLOW   an extended regular expression: dependencies whose names it matches come
#            along, and theirs ("^lib": shared libraries, the C library and its loader)
#
# The package comes from SUITE (sid, bookworm, ...) of the mirror the host itself uses, by
# apt with a private configuration, state and cache, and is unpacked with dpkg -x: none
# of its scripts run. Needs a Debian host with its keyring.
set -eu

case $# in 3 | 4) ;; *) echo "usage: unpack.sh SUITE DIR PACKAGE [FOLLOW]" >&2; exit 2 ;; esac
suite=$1
dir=$2
package=$3
follow=${4:-}

say() { echo "unpack.sh: $*" >&2; }
die() { say "$*"; exit 1; }

command -v apt-get >/dev/null && command -v dpkg >/dev/null || die "no apt on this host to fetch $package with"
keyring=/usr/share/keyrings/debian-archive-keyring.gpg
[ -f "$keyring" ] || die "no $keyring to check $package with: apt-get install debian-archive-keyring"

work=$(mktemp -d "${TMPDIR:-/tmp}/dewar-unpack.XXXXXX")
trap 'rm -rf "$work"' EXIT
trap 'exit 130' INT TERM

# The mirror of the host's own main archive: whatever is configured for its release.
codename=$(. /etc/os-release && echo "${VERSION_CODENAME:-}")
mirror=$(cat /etc/apt/sources.list.d/*.sources 2>/dev/null | awk -v code="$codename" '
    function flush() { if (uris != "" && suites && main && !found) { print uris; found = 1 } uris = ""; suites = main = 0 }
    /^[ \t]*$/ { flush(); next }
    /^#/ { next }
    tolower($1) == "uris:" { uris = $2 }
    tolower($1) == "suites:" { for (i = 2; i <= NF; i++) if ($i == code || $i == "stable" || $i == "sid" || $i == "testing") suites = 1 }
    tolower($1) == "components:" { for (i = 2; i <= NF; i++) if ($i == "main") main = 1 }
    END { flush() }')
[ -n "$mirror" ] || mirror=$(cat /etc/apt/sources.list /etc/apt/sources.list.d/*.list 2>/dev/null | awk -v code="$codename" '
    $1 == "deb" { sub(/\[[^]]*\] */, ""); if ($3 == code && / main/) { print $2; exit } }')
[ -n "$mirror" ] || die "no Debian mirror for \"$codename\" in /etc/apt to fetch $package from"

arch=$(dpkg --print-architecture)
mkdir -p "$work/lists/partial" "$work/archives/partial" "$work/none"
: >"$work/status"
echo "deb [signed-by=$keyring] $mirror $suite main" >"$work/sources.list"
# The host's Acquire settings (proxies) still hold; where apt keeps and reads things does not.
cat >"$work/apt.conf" <<CONF
Dir::State "$work";
Dir::State::lists "$work/lists";
Dir::State::status "$work/status";
Dir::Cache "$work";
Dir::Cache::archives "$work/archives";
Dir::Etc::sourcelist "$work/sources.list";
Dir::Etc::sourceparts "$work/none";
Dir::Etc::preferences "$work/none/preferences";
Dir::Etc::preferencesparts "$work/none";
Acquire::Languages "none";
Acquire::Retries "3";
APT::Sandbox::User "root";
APT::Architecture "$arch";
CONF
export APT_CONFIG="$work/apt.conf"

say "fetching $package for $arch from suite $suite of $mirror"
apt-get update -qq >"$work/update" 2>&1 || { cat "$work/update" >&2; die "reading the package list of $suite failed"; }

packages=$package
fresh=${follow:+$package}
while [ -n "$fresh" ]; do
    # shellcheck disable=SC2086
    found=$(apt-cache depends --no-recommends --no-suggests --no-conflicts --no-breaks --no-replaces --no-enhances $fresh |
        sed -n 's/^[ |]*\(Pre\)\{0,1\}Depends: \([^ <>:]*\).*/\2/p' | grep -E "$follow" | sort -u || :)
    fresh=
    for name in $found; do
        case " $packages " in *" $name "*) ;; *) packages="$packages $name" fresh="$fresh $name" ;; esac
    done
done
# shellcheck disable=SC2086
(cd "$work/archives" && apt-get download -qq $packages) >"$work/download" 2>&1 ||
    { cat "$work/download" >&2; die "downloading $packages failed"; }
mkdir -p "$dir"
for deb in "$work"/archives/*.deb; do
    dpkg -x "$deb" "$dir"
done
