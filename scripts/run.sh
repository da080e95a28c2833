#!/bin/sh
# Boot an unmodified Debian kernel to a shell on this terminal: run.sh NADIR CACHE [OPTION...]
# The kernel and busybox come from Debian packages that are unpacked into CACHE, not installed; further options go to nadir.
set -eu
nadir=$1
cache=$2
shift 2
here=$(dirname "$0")
mkdir -p "$cache"
"$here/guest-package.sh" linux-image-cloud-amd64 "$cache/linux-cloud"
"$here/guest-package.sh" busybox-static "$cache/busybox"
if [ ! -e "$cache/shell.cpio.gz" ] || [ "$here/initramfs.sh" -nt "$cache/shell.cpio.gz" ]; then
	"$here/initramfs.sh" "$cache/busybox/bin/busybox" "$cache/shell.cpio.gz"
fi
exec "$nadir" run --kernel "$cache"/linux-cloud/boot/vmlinuz-* --initrd "$cache/shell.cpio.gz" \
	--append 'console=ttyS0 quiet' "$@"
