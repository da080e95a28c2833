#!/bin/sh
# Obtain guest software without installing it: unpack the Debian package PACKAGE into DIRECTORY, once.
#   guest-package.sh PACKAGE[:ARCHITECTURE] DIRECTORY
# Of another architecture than the system's, packages are found by lists of its own, kept beside DIRECTORY: the system's stay as they are.
# A package that only depends on the versioned one (linux-image-amd64) is followed; debian-installer-netboot is the newest release's there is. DIRECTORY is complete or absent.
# What it depends on is told in the file "depends" there.
set -eu
package=$1
directory=$2
[ ! -d "$directory" ] || exit 0

options= root=
[ "$(id -u)" -eq 0 ] || root=sudo
case $package in
*:*)
	architecture=${package#*:} package=${package%:*} root=
	own=$(cd "$(dirname "$directory")" && pwd)/apt-$architecture
	mkdir -p "$own/lists/partial" "$own/cache/archives/partial"
	: >"$own/status"
	options="-o APT::Architecture=$architecture -o APT::Architectures=$architecture -o Dir::State::lists=$own/lists
		-o Dir::State::status=$own/status -o Dir::Cache=$own/cache"
	;;
esac
# shellcheck disable=SC2086
cached() { apt-cache $options "$@"; }
if ! cached show "$package" >/dev/null 2>&1; then
	# shellcheck disable=SC2086
	$root apt-get -q $options update >/dev/null 2>&1 || true # one source of several may be out of reach
fi
case $package in
linux-image-*)
	real=$(cached depends "$package" | sed -n 's/^ *Depends: \(linux-image-[0-9][^ ]*\)$/\1/p' | head -n 1)
	package=${real:-$package}
	;;
debian-installer-netboot)
	package=$(cached pkgnames debian-installer- | grep -x 'debian-installer-[0-9]*-netboot-amd64' | sort -V | tail -n 1)
	;;
esac
# The newest version that an archive has: the one that is installed here may come from elsewhere.
version=$(cached madison "$package" | sed -n '1s/^[^|]*| *\([^ ]*\) .*/\1/p')

work=$directory.part
rm -rf "$work"
mkdir -p "$work"
trap 'rm -rf "$work"' EXIT INT TERM
echo "nadir: downloading $package"
# shellcheck disable=SC2086
(cd "$work" && apt-get -q $options download "$package${version:+=$version}" >apt.log 2>&1) || {
	cat "$work/apt.log" >&2
	echo "nadir: the package $package could not be downloaded; is this a Debian system with a network?" >&2
	exit 1
}
dpkg-deb -x "$work"/*.deb "$work"
dpkg-deb -f "$work"/*.deb Pre-Depends Depends >"$work/depends"
rm -f "$work"/*.deb "$work/apt.log"
mv "$work" "$directory"
