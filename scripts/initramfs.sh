#!/bin/sh
# Pack an initramfs from a static busybox: initramfs.sh BUSYBOX OUTPUT [SCRIPT [FILE...]]
# Without SCRIPT it boots to an interactive shell on the first serial port; with it, it runs SCRIPT there and powers off. FILEs go to /files.
set -eu
busybox=$1
output=$2
script=${3:-}

root=$(mktemp -d)
trap 'rm -rf "$root"' EXIT INT TERM
mkdir -p "$root/bin" "$root/sbin" "$root/etc" "$root/proc" "$root/sys" "$root/dev" "$root/tmp" "$root/root"
cp "$busybox" "$root/bin/busybox"
for applet in $("$busybox" --list); do
	[ "$applet" = busybox ] || ln -s busybox "$root/bin/$applet"
done
ln -s bin/busybox "$root/init"
for applet in init poweroff reboot halt; do
	ln -s ../bin/busybox "$root/sbin/$applet"
done
cat >"$root/etc/rc" <<'RC'
#!/bin/sh
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs devtmpfs /dev
hostname nadir
RC
chmod +x "$root/etc/rc"
if [ -n "$script" ]; then
	cp "$script" "$root/script"
	chmod +x "$root/script"
	shift 3
	mkdir "$root/files"
	[ $# -eq 0 ] || cp "$@" "$root/files"
	console='ttyS0::once:/bin/sh -c "/bin/sh /script; poweroff -f"'
else
	printf 'root:x:0:0:root:/root:/bin/sh\n' >"$root/etc/passwd"
	cat >"$root/etc/profile" <<'PROFILE'
export PATH=/bin:/sbin HOME=/root TERM=vt100 PS1='\h:\w# '
printf '\nThis is %s in nadir. "poweroff" ends it, Ctrl-a x kills it, Ctrl-a h helps.\n\n' "$(uname -sr)"
PROFILE
	console='ttyS0::respawn:-/bin/sh'
fi
printf '%s\n' '::sysinit:/etc/rc' "$console" '::ctrlaltdel:/sbin/reboot' >"$root/etc/inittab"
(cd "$root" && find . | LC_ALL=C sort | cpio --quiet -o -H newc -R 0:0) | gzip -n -9 >"$output.part"
mv "$output.part" "$output"
