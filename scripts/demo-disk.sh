#!/usr/bin/env bash
# Makes the disk of `make demo`: MBR, GRUB, an ext4 partition with Debian's cloud kernel and a busybox initrd; qcow2.
# Needs no root: the file system is filled by mke2fs, GRUB's core goes into the gap before the partition.
#
#   scripts/demo-disk.sh FOLDER     writes FOLDER/disk.qcow2 (kept if it is there already)
set -euo pipefail
export PATH="$PATH:/sbin:/usr/sbin"

out=${1:?"usage: $0 FOLDER"}
die() { printf 'demo-disk: %s\n' "$*" >&2; exit 1; }
mkdir -p "$out"
out=$(cd "$out" && pwd)
[ -f "$out/disk.qcow2" ] && [ "$out/disk.qcow2" -nt "$0" ] && exit 0

for tool in apt-get dpkg-deb busybox mke2fs grub-mkimage qemu-img; do
    command -v "$tool" >/dev/null 2>&1 || die "$tool is missing: run scripts/setup.sh"
done
grub=/usr/lib/grub/i386-pc
[ -f "$grub/boot.img" ] || die "$grub is missing: run scripts/setup.sh"

# The kernel, as the newest package that the metapackage names.
if [ ! -f "$out/kernel.ok" ]; then
    package=$(apt-cache depends linux-image-cloud-amd64 | sed -n 's/^ *Depends: \(linux-image-[0-9].*\)$/\1/p' | head -n 1)
    [ -n "$package" ] || die "apt knows no linux-image-cloud-amd64 (try apt-get update)"
    rm -rf "$out/kernel"
    mkdir "$out/kernel"
    (cd "$out/kernel" && apt-get download -q "$package" >/dev/null 2>&1 && dpkg-deb -x ./*.deb . && rm -f ./*.deb)
    touch "$out/kernel.ok"
fi
kernel=$(echo "$out"/kernel/boot/vmlinuz-*)
modules=$(echo "$out"/kernel/lib/modules/*/kernel/drivers)

work=$(mktemp -d "$out/work.XXXXXX")
trap 'rm -rf "$work"' EXIT

# initrd: busybox, the drivers of a virtio disk, a script.
mkdir -p "$work"/rd/{bin,dev,proc,sys,mnt,lib}
cp "$(command -v busybox)" "$work/rd/bin/busybox"
order="virtio_ring virtio virtio_pci_legacy_dev virtio_pci_modern_dev virtio_pci virtio_blk"
for m in $order; do
    cp "$(find "$modules" -name "$m.ko")" "$work/rd/lib/"
done
cat >"$work/rd/init" <<INIT
#!/bin/busybox sh
/bin/busybox --install -s /bin
export PATH=/bin PS1='demo# '
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs dev /dev
for m in $order; do insmod /lib/\$m.ko; done
mount -o ro /dev/vda1 /mnt
echo "up: \$(uname -sr), \$(grep -c ^processor /proc/cpuinfo) CPU, root disk \$(cat /sys/block/vda/size) sectors"
exec setsid -c sh </dev/ttyS0 >/dev/ttyS0 2>&1
INIT
chmod +x "$work/rd/init"

mkdir -p "$work/root/boot/grub"
(cd "$work/rd" && find . | busybox cpio -o -H newc 2>/dev/null | gzip -1) >"$work/root/boot/initrd.gz"
cp "$kernel" "$work/root/boot/vmlinuz"
cat >"$work/root/boot/grub/grub.cfg" <<'CFG'
serial --unit=0 --speed=115200
terminal_input serial
terminal_output serial
echo "GRUB: loading Debian's kernel ..."
linux /boot/vmlinuz console=ttyS0 quiet panic=-1
initrd /boot/initrd.gz
boot
CFG

# Sector 0: GRUB's boot sector and the partition table; from sector 1: GRUB's core; from 1 MiB: the partition.
size=40
truncate -s ${size}M "$work/disk.raw"
mke2fs -q -t ext4 -O ^metadata_csum,^64bit -E offset=1048576 -d "$work/root" "$work/disk.raw" $(((size - 1) * 1024))k
grub-mkimage -O i386-pc -p '(hd0,msdos1)/boot/grub' -o "$work/core.img" biosdisk part_msdos ext2 linux serial terminal echo boot normal configfile
[ "$(stat -c %s "$work/core.img")" -lt 1048064 ] || die "GRUB's core does not fit before the partition"
dd if="$grub/boot.img" of="$work/disk.raw" bs=446 count=1 conv=notrunc status=none
dd if="$work/core.img" of="$work/disk.raw" bs=512 seek=1 conv=notrunc status=none
le32() { printf '\\x%02x\\x%02x\\x%02x\\x%02x' $(($1 & 255)) $(($1 >> 8 & 255)) $(($1 >> 16 & 255)) $(($1 >> 24 & 255)); }
# One active Linux partition; addresses as block numbers only.
printf "\x80\xfe\xff\xff\x83\xfe\xff\xff$(le32 2048)$(le32 $(((size - 1) * 2048)))" |
    dd of="$work/disk.raw" bs=1 seek=446 conv=notrunc status=none
printf '\x55\xaa' | dd of="$work/disk.raw" bs=1 seek=510 conv=notrunc status=none
qemu-img convert -O qcow2 "$work/disk.raw" "$work/disk.qcow2"
mv "$work/disk.qcow2" "$out/disk.qcow2"
