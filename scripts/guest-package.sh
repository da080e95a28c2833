#!/bin/sh
# Obtain guest software without installing it: unpack the Debian package PACKAGE into DIRECTORY, once.
#   guest-package.sh PACKAGE DIRECTORY
# A package that only depends on the versioned one (linux-image-amd64) is followed. DIRECTORY is complete or absent.
# What it depends on is told in the file "depends" there.
set -eu
package=$1
directory=$2
[ ! -d "$directory" ] || exit 0

if ! apt-cache show "$package" >/dev/null 2>&1; then
	root=
	[ "$(id -u)" -eq 0 ] || root=sudo
	$root apt-get -q update >/dev/null
fi
case $package in
linux-image-*)
	real=$(apt-cache depends "$package" | sed -n 's/^ *Depends: \(linux-image-[0-9][^ ]*\)$/\1/p' | head -n 1)
	package=${real:-$package}
	;;
esac
# The newest version that an archive has: the one that is installed here may come from elsewhere.
version=$(apt-cache madison "$package" | sed -n '1s/^[^|]*| *\([^ ]*\) .*/\1/p')

work=$directory.part
rm -rf "$work"
mkdir -p "$work"
trap 'rm -rf "$work"' EXIT INT TERM
echo "nadir: downloading $package"
(cd "$work" && apt-get -q download "$package${version:+=$version}" >apt.log 2>&1) || {
	cat "$work/apt.log" >&2
	echo "nadir: the package $package could not be downloaded; is this a Debian system with a network?" >&2
	exit 1
}
dpkg-deb -x "$work"/*.deb "$work"
dpkg-deb -f "$work"/*.deb Pre-Depends Depends >"$work/depends"
rm -f "$work"/*.deb "$work/apt.log"
mv "$work" "$directory"
