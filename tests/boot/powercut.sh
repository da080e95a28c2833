# Runs in the guest: writes files to two file systems until the power is cut, and tells which are safe. powercut.py cuts and checks.
cd /files || exit
for module in virtio_ring virtio virtio_pci_modern_dev virtio_pci_legacy_dev virtio_pci virtio_blk; do
	insmod ./$module.ko
done
for disk in vda vdb; do
	mkdir -p /mnt/$disk
	mount -t ext4 -o discard /dev/$disk /mnt/$disk || echo "failed: mount $disk"
done
# A file is replaced as a whole: its first line is its number, the rest follows from it.
worker() {
	i=$(cat /mnt/$1/last.$2 2>/dev/null || echo 0)
	while :; do
		i=$((i + 1))
		seq $i $((i + i % 7 * 3000)) | dd of=/mnt/$1/new.$2 bs=20k conv=fsync 2>/dev/null || echo "failed: write $1"
		mv /mnt/$1/new.$2 /mnt/$1/$2.$((i % 5))
		echo $i >/mnt/$1/last.$2
		sync
		echo "safe: $1 $2.$((i % 5)) $i"
		[ $((i % 11)) != 0 ] || rm -f /mnt/$1/$2.$(((i + 1) % 5)) # so that there is something to discard
	done
}
echo "ready: go"
for disk in vda vdb; do
	worker $disk one &
	worker $disk two &
done
wait
