# Runs in the guest: reads the virtio keyboard and tablet by the kernel's own drivers, whose modules are in /files. What comes is checked by display.py.
cd /files || exit
for module in $(cat modules); do
	insmod "./$module.ko" || echo "module: $module"
done
chmod 755 input_guest
./input_guest "nadir tablet" 2
./input_guest "nadir keyboard" 2
rmmod virtio_input
echo "without virtio"
for keyboard in virtio PS/2; do
	read -r line </dev/tty1
	echo "typed: $line"
done
echo "errors: $(dmesg | grep -ciE 'BUG:|Oops|call trace')"
echo "script: end"
sleep 1000
