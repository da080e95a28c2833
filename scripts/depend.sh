#!/bin/sh
# Install the Debian packages that a task needs and that are missing: depend.sh build|run|test|iso|bench|lint|package ...
# Uses apt-get, through sudo where the user is not root. Prints nothing and takes no time when nothing is missing.
set -eu

build='gcc libc6-dev make meson ninja-build libzydis-dev libzycore-dev libseccomp-dev libjson-c-dev libslirp-dev libhttp-parser-dev zlib1g-dev libzstd-dev liburing-dev libnbd-dev nettle-dev python3'
run='cpio gzip'
test='libcmocka-dev clang iperf3 libclang-rt-dev acpica-tools util-linux cpio gzip git curl gdb qemu-utils qemu-system-x86 dpkg-dev e2fsprogs grub-common mtools xorriso bochs bochs-term bochsbios mmdebstrap vncsnapshot gvncviewer ipxe-qemu'
iso='dpkg-dev grub-common grub-pc-bin grub-efi-amd64-bin xorriso mtools cpio gzip'
bench='qemu-system-x86 qemu-utils iperf3 cpio gzip'
lint='clang clang-tidy clang-format cppcheck'
package='build-essential debhelper'

packages=
for task; do
	case $task in
	build) packages="$packages $build" ;;
	run) packages="$packages $run" ;;
	test) packages="$packages $test" ;;
	iso) packages="$packages $iso" ;;
	bench) packages="$packages $bench" ;;
	lint) packages="$packages $lint" ;;
	package) packages="$packages $package" ;;
	*) echo "depend.sh: there is no task $task" >&2; exit 2 ;;
	esac
done
packages=$(echo "$packages" | tr ' ' '\n' | sort -u | tr '\n' ' ')

if ! command -v dpkg-query >/dev/null || ! command -v apt-get >/dev/null; then
	echo "nadir: this is not a Debian system; if the build fails, install what corresponds to:$packages" >&2
	exit 0
fi

# shellcheck disable=SC2086
installed=$(dpkg-query -W -f '${db:Status-Status} ${Package}\n' $packages 2>/dev/null | sed -n 's/^installed //p' || true)
missing=
for package in $packages; do
	echo "$installed" | grep -qxF "$package" || missing="$missing $package"
done
[ -n "$missing" ] || exit 0

ask()
{
	echo "nadir: please install, as root:$missing" >&2
	exit 1
}

root=
if [ "$(id -u)" -ne 0 ]; then
	command -v sudo >/dev/null || ask
	sudo -v || ask
	root=sudo
fi
echo "nadir: installing$missing"
log=$(mktemp)
trap 'rm -f "$log"' EXIT INT TERM
$root apt-get -q update >"$log" 2>&1 || true # one source of several may be out of reach; the installation tells
# shellcheck disable=SC2086
$root env DEBIAN_FRONTEND=noninteractive apt-get -q -y --no-install-recommends install $missing >>"$log" 2>&1 || {
	cat "$log" >&2
	ask
}
