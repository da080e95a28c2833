# Runs in the guest: loads the drivers, then does what plug.py says on its console, a command a line.
cd /files || exit
for module in virtio_ring virtio virtio_pci_modern_dev virtio_pci_legacy_dev virtio_pci failover net_failover virtio_net virtio_blk; do
	insmod ./$module.ko || echo "module: $module"
done
stty -echo
dmesg -n 1 # messages would come between words
appears() { until [ -e "$1" ]; do sleep 0.05; done; }
vanishes() { while [ -e "$1" ]; do sleep 0.05; done; }
short() { md5sum | cut -c 1-12; }
cat >/tmp/dhcp <<'DHCP'
#!/bin/sh
[ "$1" = bound ] || exit 0
ifconfig $interface $ip netmask $subnet
DHCP
chmod +x /tmp/dhcp
errors() { dmesg | grep -iE 'BUG:|Oops|call trace|virtio.*(error|fail)|nobody cared|BAR [0-9]+: (no space|failed)|unregister_netdevice|I/O error'; }
echo "ready: $(ls /sys/bus/pci/slots | wc -l)"
while read -r command; do
	eval "$command"
	status=$?
	echo
	echo "done: $status"
done
