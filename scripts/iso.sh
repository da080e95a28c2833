#!/bin/sh
# Make a bootable image (CD-ROM, USB stick; BIOS and UEFI) of nadir.elf: iso.sh OUTPUT NADIR [--append STRING] [FILE...]
# The FILEs are given to nadir as modules of their names: descriptions of guests (*.vm), kernels, initial RAM disks. STRING is nadir's command line.
set -eu
output=$1
nadir=$2
shift 2
append=
if [ "${1:-}" = --append ]; then
	append=$2
	shift 2
fi
root=$(mktemp -d)
trap 'rm -rf "$root"' EXIT INT TERM
mkdir -p "$root/boot/grub"
# Packed, since GRUB reads a packed file in small pieces: of the plain one, a MiB and more, OVMF's CD-ROM driver does not deliver all sectors.
objcopy --strip-debug "$nadir" "$root/nadir.elf"
gzip -9 -n <"$root/nadir.elf" >"$root/boot/nadir.elf.gz"
rm "$root/nadir.elf"
{
	echo 'serial --unit=0 --speed=115200'
	echo 'terminal_input serial console'
	echo 'terminal_output serial console'
	echo 'set timeout=0'
	echo 'insmod gzio'
	echo 'menuentry nadir {'
	echo "	multiboot2 /boot/nadir.elf.gz $append"
	for file; do
		name=$(basename "$file")
		cp "$file" "$root/boot/$name"
		echo "	module2 --nounzip /boot/$name $name"
	done
	echo '}'
} >"$root/boot/grub/grub.cfg"
log=$root.log
grub-mkrescue --compress=xz --fonts= --locales= --themes= -o "$output" "$root" >"$log" 2>&1 || {
	cat "$log" >&2
	rm -f "$log"
	exit 1
}
rm -f "$log"
