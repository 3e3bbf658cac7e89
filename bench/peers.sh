#!/usr/bin/env bash
# Fetches what the benchmarks compare with, or load with, if it is not there: nginx with its RTMP module, and wrk, as
# Debian packages them. They are only unpacked into the folder that is named; nothing is installed or started.
#
#   bench/peers.sh FOLDER
set -euo pipefail

folder=${1:?the folder to unpack into}
say() { echo "   peers: $*" >&2; }
die() { say "$*"; exit 1; }

[[ -e $folder/complete ]] && exit
command -v apt-get >/dev/null && command -v dpkg >/dev/null || die "only Debian's packages are known here; nginx is left out"

# libluajit is wrk's; the other libraries these need are on every machine that has git and Chromium.
packages=(nginx libnginx-mod-rtmp wrk libluajit-5.1-2)
say "fetching ${packages[*]} to compare with (2 MB, into ${folder#"$PWD"/}, nothing is installed)"
rm -rf "$folder"
mkdir -p "$folder/packages"
cd "$folder/packages"
# The lists may be missing or old; reading them needs root.
fetch() { apt-get -qq download "${packages[@]}" 2>/dev/null; }
as_root() { if ((EUID == 0)); then "$@"; else sudo "$@"; fi; }
fetch || { as_root apt-get -qq -o DPkg::Lock::Timeout=900 update && fetch; } || die "apt-get could not fetch them"
for package in *.deb; do dpkg --extract "$package" "$folder"; done
mkdir "$folder/lib"
ln -s "$folder"/usr/lib/*/libluajit-5.1.so.2 "$folder/lib/"
touch "$folder/complete"
