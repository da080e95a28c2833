# Runs in the guest and uses the virtio devices by the kernel's own drivers, whose modules are in /files. Each line is checked by boot.py.
cd /files || exit
for module in virtio_ring virtio virtio_pci_modern_dev virtio_pci_legacy_dev virtio_pci virtio-rng virtio_blk; do
	insmod ./$module.ko || echo "module: $module"
done
echo "random: $(cut -d . -f 1 /sys/class/misc/hw_random/rng_current)"
echo "bytes: $(dd if=/dev/hwrng bs=64 count=16 2>/dev/null | wc -c)"
echo "different: $(for i in 1 2 3 4 5; do dd if=/dev/hwrng bs=16 count=1 2>/dev/null | md5sum; done | sort -u | wc -l)"
echo "disk: $(cat /sys/block/vda/size) $(cat /sys/block/vda/ro) $(cat /sys/block/vda/serial)"
echo "cdrom: $(cat /sys/block/vdb/size) $(cat /sys/block/vdb/ro)"
echo "queues: $(ls /sys/block/vda/mq | wc -l)"
echo "rings: $(cut -c 35,30,29 /sys/block/vda/device/features)"
echo "cache: $(cat /sys/block/vda/queue/write_cache)"
echo "write through" >/sys/block/vda/cache_type && echo "switched: $(cat /sys/block/vda/cache_type /sys/block/vda/queue/write_cache | tr '\n' ' ')"
seq 1 1000 | dd of=/dev/vda bs=512 seek=100000 conv=fsync 2>/dev/null
echo "write back" >/sys/block/vda/cache_type
echo "read: $(dd if=/dev/vda bs=1M count=8 2>/dev/null | md5sum | cut -c 1-12)"
echo "read-only: $(md5sum </dev/vdb | cut -c 1-12)"
forget() { sync; echo 3 >/proc/sys/vm/drop_caches; }
seq 1 1000000 >/tmp/numbers
dd if=/tmp/numbers of=/dev/vda bs=1M seek=8 conv=fsync 2>/dev/null && echo "fsync: done"
forget
echo "written: $(dd if=/dev/vda bs=1M skip=8 2>/dev/null | head -c "$(wc -c </tmp/numbers)" | md5sum | cut -c 1-12)"
for i in 1 2 3 4; do # at once, in small pieces, each in its place
	(seq $i 4 900000 | head -c 524288 >/tmp/piece$i; dd if=/tmp/piece$i of=/dev/vda bs=3072 seek=$((i * 1024)) conv=fsync 2>/dev/null) &
done
wait
forget
echo "pieces: $(for i in 1 2 3 4; do dd if=/dev/vda bs=3072 skip=$((i * 1024)) 2>/dev/null | head -c 524288; done | md5sum | cut -c 1-12)"
echo "same: $(cat /tmp/piece? | md5sum | cut -c 1-12)"
dd if=/dev/zero of=/dev/vdb bs=512 count=1 conv=fsync 2>/dev/null || echo "refused: write"
mke2fs /dev/vda >/dev/null 2>&1 && mkdir /mnt && mount -t ext4 /dev/vda /mnt && cp /tmp/numbers /mnt/n && umount /mnt && forget && mount -t ext4 -o discard /dev/vda /mnt &&
	echo "mounted: $(md5sum </mnt/n | cut -c 1-12)"
rm -f /mnt/n; umount /mnt
echo "interrupts: $(grep virtio /proc/interrupts | grep -o 'PCI-MSI\|IO-APIC' | sort -u)"
echo "errors: $(dmesg | grep -ciE 'BUG:|Oops|call trace|virtio.*(error|fail)|I/O error|nobody cared')"
dmesg | grep -iE 'BUG:|Oops|call trace|virtio.*(error|fail)|I/O error|nobody cared' | head -5
echo "script: end"
