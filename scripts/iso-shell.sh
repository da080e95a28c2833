#!/bin/sh
# What `make iso` does: iso-shell.sh OUTPUT NADIR CACHE APPEND [FILE...]
# Without FILEs the guest is Debian's cloud kernel with a shell, made as scripts/run.sh does.
set -eu
output=$1
nadir=$2
cache=$3
append=$4
shift 4
here=$(dirname "$0")
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT INT TERM
if [ $# -eq 0 ]; then
	mkdir -p "$cache"
	"$here/guest-package.sh" linux-image-cloud-amd64 "$cache/linux-cloud"
	"$here/guest-package.sh" busybox-static "$cache/busybox"
	cp "$cache"/linux-cloud/boot/vmlinuz-* "$work/vmlinuz"
	"$here/initramfs.sh" "$cache/busybox/bin/busybox" "$work/initrd"
	cat >"$work/shell.vm" <<'VM'
kernel = vmlinuz
initrd = initrd
append = "console=ttyS0 quiet"
memory = 256M
VM
	set -- "$work/shell.vm" "$work/vmlinuz" "$work/initrd"
fi
"$here/iso.sh" "$output" "$nadir" --append "$append" "$@"
echo "nadir: $output is ready"
