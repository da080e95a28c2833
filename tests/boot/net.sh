# Runs in the guest and uses virtio network cards by the kernel's own driver, whose modules are in /files. ROLE and PORTs are on the kernel's command
# line. Each line is checked by net.py.
cd /files || exit
for module in virtio_ring virtio virtio_pci_modern_dev virtio_pci_legacy_dev virtio_pci failover net_failover virtio_net; do
	insmod ./$module.ko || echo "module: $module"
done
for word in $(cat /proc/cmdline); do
	case $word in role=* | give=* | take=*) eval "$word" ;; esac
done
short() { md5sum | cut -c 1-12; }
cat >/tmp/dhcp <<'DHCP'
#!/bin/sh
[ "$1" = bound ] || exit 0
ifconfig $interface $ip netmask $subnet
route add default gw $router
echo "address: $ip $router $dns"
DHCP
chmod +x /tmp/dhcp
seq 1 700000 >/tmp/numbers
mkfifo /tmp/silence # whose end never comes: at the end of its input nc says so to the other one, which then ends, too
exec 3<>/tmp/silence
settle() { sleep 0.2; } # until the other side listens

case $role in
user)
	ip link set eth0 up
	udhcpc -i eth0 -s /tmp/dhcp -q -n 2>/dev/null
	echo "fetched: $(nc 10.0.2.2 "$give" </dev/null | short)"
	nc 10.0.2.2 "$take" </tmp/numbers && echo "sent: done"
	echo "fragments: $(ping -c 1 -s 4000 -W 20 10.0.2.2 | grep -o '4008 bytes' | head -n 1)"
	nc -l -p 22 </tmp/numbers &
	settle
	echo "listening: now"
	nc -l -p 23 </dev/null >/tmp/in
	wait
	echo "forwarded: $(short </tmp/in)"
	echo "mtu: $(cat /sys/class/net/eth0/mtu)"
	;;
tap)
	ifconfig eth0 10.77.0.2 up
	echo "fetched: $(nc 10.77.0.1 "$give" </dev/null | short)"
	nc 10.77.0.1 "$take" </tmp/numbers && echo "sent: done"
	;;
one)
	ifconfig eth0 10.1.0.1 up
	nc -l -p 5000 <&3 >/tmp/in
	echo "from two: $(short </tmp/in)"
	nc -l -p 5001 </tmp/numbers
	;;
stay)
	ifconfig eth0 10.1.0.1 up
	nc -l -p 5002 <&3 >/tmp/in
	echo "told: $(cat /tmp/in)"
	;;
again)
	ifconfig eth0 10.1.0.2 up
	until ping -c 1 -W 1 10.1.0.1 >/dev/null; do :; done
	echo "reached: once"
	until [ "$(cat /sys/class/net/eth0/carrier)" = 0 ]; do settle; done
	echo "carrier: lost"
	until ping -c 1 -W 1 10.1.0.1 >/dev/null; do :; done
	echo "reached again: $(cat /sys/class/net/eth0/carrier)"
	until echo "end" | nc 10.1.0.1 5002; do settle; done
	;;
two)
	ifconfig eth0 10.1.0.2 up
	seq 1 300000 >/tmp/other
	until nc 10.1.0.1 5000 </tmp/other; do settle; done
	until nc 10.1.0.1 5001 <&3 >/tmp/in; do settle; done
	echo "from one: $(short </tmp/in)"
	;;
esac
echo "pairs: $(ls -d /sys/class/net/eth0/queues/rx-* | wc -l)"
echo "cards: $(ls -d /sys/class/net/eth* | wc -l)"
echo "errors: $(dmesg | grep -ciE 'BUG:|Oops|call trace|virtio.*(error|fail)|nobody cared|bad gso|unregister_netdevice')"
dmesg | grep -iE 'BUG:|Oops|call trace|virtio.*(error|fail)|nobody cared|bad gso' | head -5
echo "script: end"
