# Runs in the guest and uses the virtio devices by the kernel's own drivers, whose modules are in /files. Each line is checked by boot.py.
cd /files || exit
for module in virtio_ring virtio virtio_pci_modern_dev virtio_pci_legacy_dev virtio_pci virtio-rng; do
	insmod ./$module.ko || echo "module: $module"
done
echo "random: $(cut -d . -f 1 /sys/class/misc/hw_random/rng_current)"
echo "bytes: $(dd if=/dev/hwrng bs=64 count=16 2>/dev/null | wc -c)"
echo "different: $(for i in 1 2 3 4 5; do dd if=/dev/hwrng bs=16 count=1 2>/dev/null | md5sum; done | sort -u | wc -l)"
echo "interrupts: $(grep virtio /proc/interrupts | grep -o 'PCI-MSI\|IO-APIC' | sort -u)"
echo "errors: $(dmesg | grep -ciE 'BUG:|Oops|call trace|virtio.*(error|fail)|I/O error|nobody cared')"
dmesg | grep -iE 'BUG:|Oops|call trace|virtio.*(error|fail)|I/O error|nobody cared' | head -5
echo "script: end"
