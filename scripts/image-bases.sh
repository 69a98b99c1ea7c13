#!/usr/bin/env bash
# Makes what it takes to build the Dockerfile where there is neither a container engine nor a registry of images: stand-ins
# for its bases, of Debian's packages and this machine's Rust, in a storage of their own below FOLDER; and in FOLDER/options
# how a build reaches the indexes of packages as this machine does. Needs root, buildah, debootstrap and a Rust of rustup's.
#
#   scripts/image-bases.sh FOLDER
#   export CONTAINERS_STORAGE_CONF=FOLDER/storage.conf
#   buildah bud $(< FOLDER/options) --target cpu --tag sextant .
set -euo pipefail
folder=$(realpath "${1:?where to: a new folder}")
cd "$(dirname "${BASH_SOURCE[0]}")/.."
mkdir "$folder" "$folder/machine"

base() { sed -n "s/^ARG $1=//p" Dockerfile; }

# `vfs` copies where others stack, and works on any file system, in a container too.
cat > "$folder/storage.conf" << CONF
[storage]
driver = "vfs"
graphroot = "$folder/storage"
runroot = "$folder/run"
CONF
export CONTAINERS_STORAGE_CONF=$folder/storage.conf

# Which indexes this machine uses, and how it knows them. Mounted while something is built, never in an image.
machine=$folder/machine
cp "${SSL_CERT_FILE:-/etc/ssl/certs/ca-certificates.crt}" "$machine/ca.crt"
{
    echo "[global]"
    echo "cert = /machine/ca.crt"
    "${PYTHON:-python3}" -m pip config list \
        | sed -n "s/^[^=]*\.\(index-url\|extra-index-url\|trusted-host\|proxy\|default-timeout\)='\(.*\)'$/\1 = \2/p"
} > "$machine/pip.conf"
apt-config dump | grep -E '^Acquire::(Check-|[a-z]+::(Proxy|Verify|CAInfo))' > "$machine/apt.conf" || true
volumes=(
    "--volume=$(rustc --print sysroot):/machine/toolchain:ro"
    "--volume=$machine/ca.crt:/machine/ca.crt:ro"
    "--volume=$machine/pip.conf:/etc/pip.conf:ro"
    "--volume=$machine/apt.conf:/etc/apt/apt.conf.d/99machine:ro"
)
cargo_config=${CARGO_HOME:-$HOME/.cargo}/config.toml
if [[ -f "$cargo_config" ]]; then
    volumes+=("--volume=$cargo_config:/usr/local/cargo/config.toml:ro")
fi
printf '%s\n' --isolation=chroot --pull-never --format=docker "${volumes[@]}" > "$folder/options"

# Where this machine is a Debian of the same release, its mirrors; otherwise debootstrap's own.
release=$(base DEBIAN)
release=${release#debian:}
release=${release%-slim}
mapfile -t sources < <(apt-get indextargets --format 'deb $(REPO_URI) $(RELEASE) $(COMPONENT)' 'Created-By: Packages' \
    | grep -E " $release(-updates|-security)? main$" | sort -u)
mirror=$(printf '%s\n' "${sources[@]}" | awk -v release="$release" '$3 == release { print $2; exit }')
debootstrap --variant=minbase "$release" "$folder/debian" ${mirror:+"$mirror"} > "$folder/debootstrap.log" \
    || { tail -n 20 "$folder/debootstrap.log" >&2; exit 1; }
if ((${#sources[@]})); then
    printf '%s\n' "${sources[@]}" > "$folder/debian/etc/apt/sources.list"
fi
# As the slim image has it.
rm -rf "$folder"/debian/usr/share/{doc,info,locale,man}/* "$folder"/debian/var/{lib/apt/lists,cache/apt}/*
container=$(buildah from scratch)
buildah add --quiet "$container" "$folder/debian" / > /dev/null
# For short names buildah looks below localhost first.
buildah commit --quiet --rm "$container" "localhost/$(base DEBIAN)" > /dev/null
rm -rf "$folder/debian"

# The toolchain is not copied: half a gigabyte, again and again.
container=$(buildah from --pull-never "$(base DEBIAN)")
buildah run --isolation=chroot "${volumes[@]}" "$container" -- sh -euc '
    apt-get update -qq
    apt-get install -qq --no-install-recommends gcc libc6-dev ca-certificates < /dev/null > /dev/null 2>&1
    rm -rf /var/lib/apt/lists/* /var/cache/apt/*
    ln -s /machine/toolchain/bin/cargo /machine/toolchain/bin/rustc /usr/local/bin'
buildah config --env CARGO_HOME=/usr/local/cargo --env CARGO_HTTP_CAINFO=/machine/ca.crt "$container"
buildah commit --quiet --rm "$container" "localhost/$(base RUST)" > /dev/null
