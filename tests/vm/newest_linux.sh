#!/usr/bin/env bash
# Prints the path of a vmlinuz for virtual machines: of the first of SUITES that has one (the newest that Debian has:
# unstable, else stable), from the machine's own archive. It is unpacked beneath FOLDER/root with its modules, not
# installed.
#
#     newest_linux.sh FOLDER [SUITE ...]
set -euo pipefail
folder=$(mkdir -p "$1" && cd "$1" && pwd)
shift
[ $# -gt 0 ] || set -- unstable stable
found=$(find "$folder/root" -name 'vmlinuz*' -type f 2>/dev/null | head -1 || true)
if [ -n "$found" ]; then echo "$found"; exit 0; fi

archive=$(apt-get indextargets --format '$(REPO_URI)' 'Identifier: Packages' | grep -v security | head -1)
keys=/usr/share/keyrings/debian-archive-keyring.gpg
if [ -z "$archive" ] || [ ! -e "$keys" ]; then
    echo "no Debian archive is configured here. Name a Linux: make test-vm LINUX=/boot/vmlinuz-..." >&2
    exit 1
fi
for suite in "$@"; do
    mkdir -p "$folder/lists/partial" "$folder/cache/archives/partial" "$folder/packages"
    echo "deb [signed-by=$keys] $archive $suite main" >"$folder/sources.list"
    options=(
        -qq -o "Dir::Etc::SourceList=$folder/sources.list" -o Dir::Etc::SourceParts=/dev/null
        -o "Dir::State::Lists=$folder/lists" -o "Dir::Cache=$folder/cache" -o APT::Sandbox::User=root
    )
    # Without what is installed here: a newer one of the same name would count.
    options+=(-o "Dir::State::status=/dev/null")
    dependency() { apt-cache "${options[@]}" depends "$1" | sed -n "s/^ *Depends: \($2[^ ]*\)$/\1/p" | head -1; }
    apt-get "${options[@]}" update >&2 || continue
    image=$(dependency linux-image-cloud-amd64 linux-image-)
    [ -n "$image" ] || continue
    # Newer ones package the vmlinuz and the modules apart.
    (
        cd "$folder/packages"
        # shellcheck disable=SC2046 # none is no argument
        apt-get "${options[@]}" download "$image" $(dependency "$image" linux-binary-) $(dependency "$image" linux-modules-)
    ) >&2 || continue
    for package in "$folder"/packages/*.deb; do dpkg-deb -x "$package" "$folder/root"; done
    find "$folder/root" -name 'vmlinuz*' -type f | head -1
    exit 0
done
echo "the archive has no Linux for virtual machines in: $*. Name one: make test-vm LINUX=/boot/vmlinuz-..." >&2
exit 1
