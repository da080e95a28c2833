#!/bin/sh
# Build Zydis for the bare machine, without a C library, from its Debian source package: zydis-metal.sh OUTPUT COMPILER [FLAG...]
# The source is fetched once, of the version whose headers are installed, into $NADIR_CACHE or ~/.cache/nadir. apt checks it by the archive's
# signatures; it uses lists of its own there, so that the system's configuration needs no deb-src lines and stays as it is.
set -eu
output=$1
shift
cache=${NADIR_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/nadir}
version=$(dpkg-query -W -f '${source:Version}' libzydis-dev)
source=$cache/zydis-$version

fetch()
{
	own=$cache/apt-source
	mkdir -p "$own/lists/partial" "$own/cache/archives/partial"
	# The archives of Debian that the system knows, as sources.
	# shellcheck disable=SC2016
	apt-get indextargets --format '$(ORIGIN) $(SITE) $(RELEASE) $(COMPONENT)' 'Created-By: Packages' |
		sed -n 's|^Debian |deb-src [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] |p' | sort -u >"$own/sources.list"
	options="-q -o Dir::Etc::SourceList=$own/sources.list -o Dir::Etc::SourceParts=/dev/null -o Dir::State::Lists=$own/lists
		-o Dir::Cache=$own/cache -o APT::Sandbox::User="
	rm -rf "$source.part"
	mkdir -p "$source.part"
	# shellcheck disable=SC2086
	(cd "$source.part" && apt-get $options update && apt-get $options source --only-source --download-only "zydis=$version") >"$own/log" 2>&1 &&
		(cd "$source.part" && dpkg-source --no-check -x zydis_*.dsc source) >>"$own/log" 2>&1 || {
		cat "$own/log" >&2
		echo "nadir: the source package of Zydis could not be downloaded; is this a Debian system with a network?" >&2
		exit 1
	}
	mv "$source.part" "$source"
}

[ -d "$source" ] || fetch
work=$output.d
rm -rf "$work"
mkdir -p "$work"
for file in Decoder DecoderData Formatter FormatterATT FormatterBase FormatterBuffer FormatterIntel MetaInfo Mnemonic Register Segment SharedData \
	String Utils Zydis; do
	"$@" -O2 -g -w -DZYAN_NO_LIBC -DZYDIS_STATIC_BUILD -DZYCORE_STATIC_BUILD -DNDEBUG -I"$source/source/include" -I"$source/source/src" \
		-c -o "$work/$file.o" "$source/source/src/$file.c"
done
rm -f "$output"
ar rcs "$output" "$work"/*.o
rm -rf "$work"
