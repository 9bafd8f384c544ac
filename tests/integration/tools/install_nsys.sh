#!/usr/bin/env bash
# install_nsys.sh PREFIX: Nsight Systems as Debian packages it, in a folder of its own; prints the
# folder to put on PATH. It comes from this machine's own Debian mirror, through a package list that
# is thrown away: neither the machine's sources nor its installed packages change. Without a GPU it
# records NVTX ranges and calls of the system, and exports them. The user interface is left out.
set -euo pipefail

version=2023.4.4.54~12.4.1-2
prefix=$(mkdir -p "${1:?usage: install_nsys.sh PREFIX}" && cd "$1" && pwd)
libraries=usr/lib/nsight-systems/host-linux-x64
programs=usr/lib/x86_64-linux-gnu/nsight-systems

if [[ ! -x $prefix/usr/bin/nsys ]]; then
    work=$(mktemp -d)
    trap 'rm -rf "$work"' EXIT
    mkdir -p "$work/lists/partial" "$work/cache/archives/partial"
    mirror=$(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' |
        grep -m1 '/debian/\?$')
    key=/usr/share/keyrings/debian-archive-keyring.gpg
    echo "deb [arch=amd64 signed-by=$key] $mirror trixie non-free" >"$work/sources.list"
    apt=(apt-get -qq -o "Dir::Etc::sourcelist=$work/sources.list" -o Dir::Etc::sourceparts=/dev/null
        -o "Dir::State::lists=$work/lists" -o "Dir::Cache=$work/cache" -o APT::Sandbox::User=)
    "${apt[@]}" update
    (cd "$work" && "${apt[@]}" download "nsight-systems=$version" "nsight-systems-target=$version")
    for package in "$work"/*.deb; do
        dpkg-deb --fsys-tarfile "$package" | tar -x -C "$prefix" \
            --exclude='./usr/share' --exclude='*/translations' --exclude='libQt6WebEngine*' \
            --exclude='libcupti.so.*' --exclude='libnvperf_*' --exclude='CollectX'
    done
    # nsys looks for its importer beside its own program, and the importer for a libssh that the
    # package links from outside of it.
    ln -sfn ../../nsight-systems/host-linux-x64 "$prefix/$programs/host-linux-x64"
    ln -sfn /usr/lib/x86_64-linux-gnu/libssh.so.4 "$prefix/$libraries/libssh.so.4"
fi
echo "$prefix/usr/bin"
