# Runs in the guest and uses the virtio socket device by the kernel's own driver, whose modules are in /files, with a program of this test's. Each line is
# checked by vsock.py.
cd /files || exit
for module in virtio_ring virtio virtio_pci_modern_dev virtio_pci_legacy_dev virtio_pci vsock vmw_vsock_virtio_transport_common vmw_vsock_virtio_transport; do
	insmod ./$module.ko || echo "module: $module"
done
chmod 755 vsock_guest
vsock() { ./vsock_guest "$@"; }
short() { md5sum | cut -c 1-12; }
echo "cid: $(vsock cid)"
echo "sent: $(seq 1 500000 | vsock connect 2 5000)"
echo "slowly: $(seq 1 500000 | vsock connect 2 5001)"
for i in 1 2 3 4; do # at once
	seq $i 4 800000 | vsock connect 2 5000 >/tmp/sum$i &
done
wait
echo "at once: $(cat /tmp/sum1 /tmp/sum2 /tmp/sum3 /tmp/sum4 | tr '\n' ' ')"
echo "nobody: $(vsock connect 2 5999 2>&1 </dev/null | grep -o 'reset by peer\|refused')"
echo "no such machine: $(vsock connect 77 5000 2>&1 </dev/null | grep -c .)"
(seq 1 300000 | vsock listen 6000 | short >/tmp/in) &
listener=$!
echo "listening: 6000"
wait $listener
echo "received: $(cat /tmp/in)"
(vsock listen 6001 </dev/zero >/dev/null 2>/tmp/left) &
listener=$!
echo "listening: 6001"
wait $listener
echo "left: $(grep -c 'send' /tmp/left)"
echo "echo: $(echo hello | vsock connect 2 5002)"
echo "errors: $(dmesg | grep -ciE 'BUG:|Oops|call trace|virtio.*(error|fail)|vsock.*(error|fail)')"
dmesg | grep -iE 'BUG:|Oops|call trace|virtio.*(error|fail)|vsock.*(error|fail)' | head -5
echo "script: end"
