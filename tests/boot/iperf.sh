# Runs in the guest: iperf3 (Debian's) through a virtio network card. ROLE and PORT are on the kernel's command line. Each line is
# checked by iperf.py.
cd /files || exit
for module in virtio_ring virtio virtio_pci_modern_dev virtio_pci_legacy_dev virtio_pci failover net_failover virtio_net; do
	insmod ./$module.ko || echo "module: $module"
done
for word in $(cat /proc/cmdline); do
	case $word in role=* | port=*) eval "$word" ;; esac
done
ip link set lo up
mkdir -p /tmp

# measure NAME OPTION...: what the last line of iperf3 about it says, or why it failed
measure() {
	name=$1
	shift
	for attempt in 1 2 3 4 5 6 7 8 9 10; do # until the server is ready for the next
		/usr/bin/iperf3 -c "$@" >/tmp/$name 2>&1 && break
		sleep 1
	done
	grep -q 'iperf Done' /tmp/$name && echo "$name: done" || cat /tmp/$name
	echo "($name$(grep -E 'receiver$' /tmp/$name | tail -n 1 | cut -c 24-))"
}

case $role in
user)
	ip link set eth0 up && ip addr add 10.0.2.15/24 dev eth0 && ip route add default via 10.0.2.2
	to="10.0.2.2 -p $port"
	;;
one)
	ip link set eth0 up && ip addr add 10.1.0.1/24 dev eth0
	for each in 1 2 3 4; do /usr/bin/iperf3 -s -1 >/dev/null 2>&1; done
	;;
two)
	ip link set eth0 up && ip addr add 10.1.0.2/24 dev eth0
	to=10.1.0.1
	;;
esac
if [ -n "$to" ]; then
	measure send $to -n 40M
	measure receive $to -n 40M -R
	measure small $to -n 2M -N -l 100
	measure datagrams $to -n 5M -u -b 0 -l 1000
fi
echo "errors: $(dmesg | grep -ciE 'BUG:|Oops|call trace|virtio.*(error|fail)|nobody cared|bad gso|netdev watchdog')"
echo "script: end"
