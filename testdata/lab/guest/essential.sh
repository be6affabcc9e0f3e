#!/bin/sh
# Before the kernel is configured: a small initramfs, so that it is made once and loads fast.
set -e
mkdir -p "$1/etc/initramfs-tools/conf.d" "$1/usr/share/initramfs-tools/modules.d"
echo MODULES=list > "$1/etc/initramfs-tools/conf.d/lab"
printf 'virtio_blk\next4\n' > "$1/usr/share/initramfs-tools/modules.d/lab"
