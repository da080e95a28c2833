# Runs in the guest: fio writes to disks of several kinds, in patterns that it verifies. Each line is checked by fio.py.
cd /files || exit
for module in virtio_ring virtio virtio_pci_modern_dev virtio_pci_legacy_dev virtio_pci virtio_blk; do
	insmod ./$module.ko
done
mkdir -p /tools
mount -t ext4 -o ro /dev/vde /tools && mount --bind /dev /tools/dev && mount --bind /proc /tools/proc && mount -t tmpfs tmpfs /tools/tmp
ip link set lo up 2>/dev/null
# verify NAME DISK OPTION...
verify() {
	name=$1
	disk=$2
	shift 2
	if chroot /tools /usr/bin/fio --name="$name" --filename=/dev/$disk --direct=1 --ioengine=libaio --verify=crc32c --verify_fatal=1 \
		--do_verify=1 --verify_state_save=0 --randrepeat=0 --thread --gtod_cpu=0 --minimal "$@" >/tmp/out 2>&1; then
		echo "$name-$disk: verified"
	else
		echo "$name-$disk: failed"
		tail -5 /tmp/out
	fi
}
for disk in vda vdb vdc vdd; do
	verify small $disk --rw=randwrite --bsrange=512-16k --blockalign=512 --iodepth=16 --size=24m
	verify large $disk --rw=write --bs=1m --iodepth=4 --size=100%
	verify mixed $disk --rw=randrw --bs=4k --iodepth=32 --size=32m --fsync=64
	verify trims $disk --rw=trimwrite --bs=64k --iodepth=8 --size=96m
done
echo "errors: $(dmesg | grep -ciE 'BUG:|Oops|call trace|virtio.*(error|fail)|I/O error')"
echo "script: end"
