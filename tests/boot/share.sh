# Runs in the guest and uses shared folders by the kernel's own driver, whose modules are in /files. Each line is checked by share.py.
cd /files || exit
for module in virtio_ring virtio virtio_pci_modern_dev virtio_pci_legacy_dev virtio_pci fuse virtiofs; do
	insmod ./$module.ko || echo "module: $module"
done
cp /bin/busybox /files/busybox
mkdir /mnt /ro
mount -t virtiofs share /mnt && echo "mounted: share"
mount -t virtiofs fixed /ro && echo "mounted: fixed"
mount -t virtiofs other /ro 2>/dev/null || echo "no such tag: other"
cd /mnt/work || exit
. /files/share_work.sh >/tmp/work 2>&1
cd /
sed 's/^/work: /' /tmp/work
echo "given: $(md5sum </mnt/given | cut -c 1-12)"
echo "escape: $(cat /mnt/escape/secret 2>/dev/null || echo "not there") $(ls -d /mnt/../mnt)"
mknod /mnt/device c 1 3 2>/dev/null || echo "device: refused"
echo "host's device: $(cat /mnt/null 2>&1 >/dev/null | grep -c .)"
echo "read-only: $(cat /ro/given) $(touch /ro/new 2>&1 | grep -o 'Read-only file system') $(rm /ro/given 2>&1 | grep -o 'Read-only file system')"
echo "space: $([ "$(df -k /mnt | tail -n 1 | awk '{print $2}')" -gt 1000 ] && echo some)"
echo "changing: $(cat /mnt/changing)"
grep -q cache=always /proc/cmdline || while [ "$(cat /mnt/changing)" = before ]; do usleep 100000; done
echo "changed: $(cat /mnt/changing)"
until [ "$(cat /mnt/changing)" = after ]; do
	umount /mnt
	mount -t virtiofs share /mnt || break
done
echo "again: $(cat /mnt/changing)"
echo "errors: $(dmesg | grep -ciE 'BUG:|Oops|call trace|virtio.*(error|fail)|fuse.*(error|bad)')"
dmesg | grep -iE 'BUG:|Oops|call trace|virtio.*(error|fail)|fuse.*(error|bad)' | head -5
echo "script: end"
