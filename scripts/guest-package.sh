#!/bin/sh
# Obtain guest software without installing it: unpack the Debian package PACKAGE into DIRECTORY, once.
#   guest-package.sh PACKAGE DIRECTORY
# A package that only depends on the versioned one (linux-image-amd64) is followed. DIRECTORY is complete or absent.
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

work=$directory.part
rm -rf "$work"
mkdir -p "$work"
trap 'rm -rf "$work"' EXIT INT TERM
echo "nadir: downloading $package"
(cd "$work" && apt-get -q download "$package" >apt.log 2>&1) || {
	cat "$work/apt.log" >&2
	echo "nadir: the package $package could not be downloaded; is this a Debian system with a network?" >&2
	exit 1
}
dpkg-deb -x "$work"/*.deb "$work"
rm -f "$work"/*.deb "$work/apt.log"
mv "$work" "$directory"
