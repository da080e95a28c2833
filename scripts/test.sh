#!/bin/sh
# Build and run every test: test.sh BUILD CACHE [--long]
# Ends with a line "N passed, N failed" and status 0 only if nothing failed. --long adds the suite of that name.
set -eu
build=$1
cache=$2
long=${3:-}
here=$(dirname "$0")

mkdir -p "$cache"
for package in linux-image-cloud-amd64:linux-cloud linux-image-amd64:linux-generic busybox-static:busybox \
	linux-image-686-pae:i386:linux-686-pae busybox-static:i386:busybox-i386 \
	seabios:seabios ovmf:ovmf grub-pc-bin:grub-pc-bin grub-efi-amd64-bin:grub-efi-amd64-bin memtest86+:memtest86+ \
	debian-installer-netboot:installer; do
	"$here/guest-package.sh" "${package%:*}" "$cache/${package##*:}"
done
export NADIR_CACHE="$cache"

"$here/build.sh" "$build" tests
skip='--no-suite long'
[ -z "$long" ] || skip=
status=0
# shellcheck disable=SC2086
meson test -C "$build" --no-rebuild --print-errorlogs $skip || status=$?
exec "$here/test-summary.py" "$build/meson-logs/testlog.json" "$status"
