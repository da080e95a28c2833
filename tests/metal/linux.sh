# Runs in two guests of nadir.elf that have the same disk image and are at one network, by the kernel's own drivers, whose modules are in /files. me and other
# are on the kernel's command line. Each line is checked by run.py.
cd /files || exit
for module in virtio_ring virtio virtio_pci_modern_dev virtio_pci_legacy_dev virtio_pci failover net_failover virtio_net virtio_blk; do
	insmod ./$module.ko || echo "module: $module"
done
for word in $(cat /proc/cmdline); do
	case $word in me=* | other=*) eval "$word" ;; esac
done
short() { md5sum | cut -c 1-12; }
# What each writes is its own, the rest is the image's.
echo "image: $(short </dev/vda)"
echo "guest $me" | dd of=/dev/vda conv=notrunc,sync bs=512 2>/dev/null
sync
echo 3 >/proc/sys/vm/drop_caches
echo "own: $(head -n 1 /dev/vda)"
echo "rest: $(tail -c +513 /dev/vda | short)"
ifconfig eth0 10.0.0.$me up
# Frames both ways; then megabytes from the first to the second.
until ping -c 1 -W 1 10.0.0.$other >/dev/null; do :; done
echo "ping: $(ping -c 3 -s 1400 10.0.0.$other | grep -o '3 packets received')"
if [ "$me" = 1 ]; then
	tail -c +513 /dev/vda >/tmp/give
	nc -l -p 99 </tmp/give >/dev/null
else
	mkfifo /tmp/silence # whose end never comes: at the end of its input nc says so to the other one, which then ends, too
	exec 3<>/tmp/silence
	until nc 10.0.0.1 99 <&3 >/tmp/got && [ -s /tmp/got ]; do sleep 1; done
	echo "got: $(short </tmp/got)"
fi
echo "done: $me"
