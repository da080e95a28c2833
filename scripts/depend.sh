#!/bin/sh
# Install the Debian packages that a task needs and that are missing: depend.sh build|run|test|lint|package ...
# Uses apt-get, through sudo where the user is not root. Prints nothing and takes no time when nothing is missing.
set -eu

build='gcc make meson ninja-build libzydis-dev libzycore-dev libseccomp-dev libjson-c-dev python3'
run='cpio gzip'
test='libcmocka-dev clang libclang-rt-dev acpica-tools qemu-system-x86 cpio gzip git'
lint='clang clang-tidy clang-format cppcheck'
package='build-essential debhelper'

packages=
for task; do
	case $task in
	build) packages="$packages $build" ;;
	run) packages="$packages $run" ;;
	test) packages="$packages $test" ;;
	lint) packages="$packages $lint" ;;
	package) packages="$packages $package" ;;
	*) echo "depend.sh: there is no task $task" >&2; exit 2 ;;
	esac
done

if ! command -v dpkg-query >/dev/null || ! command -v apt-get >/dev/null; then
	echo "nadir: this is not a Debian system; if the build fails, install what corresponds to:$packages" >&2
	exit 0
fi

missing=
for package in $packages; do
	status=$(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null || true)
	[ "$status" = installed ] || missing="$missing $package"
done
[ -n "$missing" ] || exit 0

root=
if [ "$(id -u)" -ne 0 ]; then
	if ! command -v sudo >/dev/null; then
		echo "nadir: please install, as root:$missing" >&2
		exit 1
	fi
	root=sudo
fi
echo "nadir: installing$missing"
$root apt-get -q update >/dev/null
# shellcheck disable=SC2086
$root env DEBIAN_FRONTEND=noninteractive apt-get -q -y --no-install-recommends install $missing >/dev/null
