#!/usr/bin/env bash
# Installs what the tests, the demo and the benchmarks need on Debian 12. Safe to run again: when all is there it
# only looks and says so. Works as root or with sudo. Rust itself (cargo) must be there already.
set -euo pipefail

say() { printf 'setup: %s\n' "$*"; }
die() { printf 'setup: %s\n' "$*" >&2; exit 1; }

if [ "$(id -u)" -eq 0 ]; then
    as_root() { "$@"; }
elif command -v sudo >/dev/null 2>&1; then
    as_root() { sudo -n "$@" 2>/dev/null || sudo "$@"; }
else
    as_root() { die "'$*' needs root, and there is no sudo"; }
fi

command -v dpkg-query >/dev/null 2>&1 || die "this is not Debian: install QEMU 7.2, qemu-img 7.2, SeaBIOS, GRUB rescue images, gcc and binutils yourself"
command -v cargo >/dev/null 2>&1 || die "cargo is missing: install Rust first"

# The reference is QEMU 7.2, and its qemu-img must be of the same build: another one (from backports, say) writes other defaults.
want=(qemu-system-x86 qemu-utils seabios ipxe-qemu grub-rescue-pc ovmf busybox-static acpica-tools socat gcc libc6-dev binutils make
    grub-common grub-pc-bin e2fsprogs memtest86+ libvirt-daemon libvirt-daemon-driver-qemu libvirt-clients)

version_of() { dpkg-query -W -f='${db:Status-Status} ${Version}' "$1" 2>/dev/null | sed -n 's/^installed //p'; }
is_72() { case "$1" in 1:7.2+*) true ;; *) false ;; esac; }

missing=()
for p in "${want[@]}"; do
    [ -n "$(version_of "$p")" ] || missing+=("$p")
done
wrong=()
for p in qemu-system-x86 qemu-utils; do
    v=$(version_of "$p")
    if [ -n "$v" ] && ! is_72 "$v"; then wrong+=("$p"); fi
done
sys=$(version_of qemu-system-x86)
img=$(version_of qemu-utils)
if [ -n "$sys" ] && [ -n "$img" ] && is_72 "$sys" && is_72 "$img" && [ "$sys" != "$img" ]; then wrong+=(qemu-utils); fi

if [ ${#missing[@]} -gt 0 ] || [ ${#wrong[@]} -gt 0 ]; then
    say "to install: ${missing[*]:-} ${wrong[*]:+(to bring to 7.2: ${wrong[*]})}"
    as_root apt-get update -q
    # Newest 7.2 build that apt offers, unless one is installed already.
    if ! is_72 "${sys:-none}"; then
        sys=$(apt-cache madison qemu-system-x86 | awk '{print $3}' | grep '^1:7\.2+' | head -n 1)
        [ -n "$sys" ] || die "apt offers no qemu-system-x86 7.2 (Debian 12 has it)"
    fi
    pinned=("qemu-system-x86=$sys" "qemu-utils=$sys")
    # Siblings that must match the version, when they are there.
    for p in qemu-system-common qemu-system-data qemu-system-gui qemu-system-modules-opengl qemu-block-extra; do
        v=$(version_of "$p")
        [ -n "$v" ] && [ "$v" != "$sys" ] && apt-cache madison "$p" | awk '{print $3}' | grep -qxF "$sys" && pinned+=("$p=$sys")
    done
    rest=()
    for p in "${missing[@]}"; do
        case "$p" in qemu-system-x86 | qemu-utils) ;; *) rest+=("$p") ;; esac
    done
    as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends --allow-downgrades \
        "${pinned[@]}" "${rest[@]}"
else
    say "Debian packages: all there (QEMU $sys)"
fi

# Tools from crates.io, only when missing.
tool() { # command, crate
    if command -v "$1" >/dev/null 2>&1 || [ -x "${CARGO_HOME:-$HOME/.cargo}/bin/$1" ]; then
        say "$1: there"
    else
        say "$1: cargo install --locked $2 (some minutes)"
        cargo install --locked --quiet "$2"
    fi
}
tool cargo-nextest cargo-nextest
tool cargo-deny cargo-deny
for c in fmt clippy; do
    if cargo "$c" --version >/dev/null 2>&1; then
        say "cargo $c: there"
    elif command -v rustup >/dev/null 2>&1; then
        say "cargo $c: rustup component add"
        case "$c" in fmt) rustup component add rustfmt ;; *) rustup component add clippy ;; esac
    else
        die "cargo $c is missing"
    fi
done

if [ -w /dev/kvm ]; then say "/dev/kvm: usable"; else say "/dev/kvm: not usable by this user (tests that need KVM will say so)"; fi
