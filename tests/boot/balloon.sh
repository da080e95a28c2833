# Runs in the guest: fills memory, frees it, and does what balloon.py says on its console, a word a line.
cd /files || exit
for module in virtio_ring virtio virtio_pci_modern_dev virtio_pci_legacy_dev virtio_pci virtio_balloon; do
	insmod ./$module.ko || echo "module: $module"
done
stty -echo
mkdir /mem && mount -t tmpfs -o size=90% none /mem
echo "ready: 1"
while read -r word; do
	case $word in
	fill) dd if=/dev/zero of=/mem/big bs=1M count=200 2>/dev/null ;;
	free) rm /mem/big ;;
	check) grep -q 'virtio_balloon' /proc/modules || echo "module: lost" ;;
	end) break ;;
	esac
	echo "done: $word $(awk '/MemAvailable/ {print $2}' /proc/meminfo)"
done
echo "errors: $(dmesg | grep -ciE 'BUG:|Oops|call trace|virtio.*(error|fail)|Out of memory')"
