# Runs in the guest: talks by the virtio console and by a named port of it, both ways. Each line is checked by console.py.
cd /files || exit
for module in virtio_ring virtio virtio_pci_modern_dev virtio_pci_legacy_dev virtio_pci virtio_console; do
	insmod ./$module.ko || echo "module: $module"
done
agent=
for try in $(seq 50); do # names come a moment later
	for port in /sys/class/virtio-ports/*; do
		[ "$(cat "$port/name" 2>/dev/null)" = org.example.agent ] && agent=/dev/${port##*/}
	done
	[ -c "$agent" ] && [ -c /dev/hvc0 ] && break
	sleep 0.2
done
echo "names: $(cat /sys/class/virtio-ports/*/name 2>/dev/null | tr '\n' ' ')"
exec 3<>/dev/hvc0 # kept open: a terminal that nobody has open forgets its settings
stty raw -echo <&3
for channel in /dev/hvc0 "$agent"; do
	echo hello >"$channel"
	echo "heard: $(head -c 65536 "$channel" | md5sum | cut -c 1-12)"
	seq 1 20000 >"$channel"
done
echo "interrupts: $(grep -c virtio /proc/interrupts)"
echo "errors: $(dmesg | grep -ciE 'BUG:|Oops|call trace|virtio.*(error|fail)')"
echo "script: end"
