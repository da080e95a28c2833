# Runs in the guest: writes to the screen, and stays. What is on it is read by display.py.
cd /files || exit
for module in $(cat modules 2>/dev/null); do
	insmod "./$module.ko" || echo "module: $module"
done
[ ! -s modules ] || sleep 1
for i in $(seq 60); do echo "line $i"; done >/dev/tty0
printf 'hello from \033[31mtty0\033[0m\n' >/dev/tty0
echo "errors: $(dmesg | grep -ciE 'BUG:|Oops|call trace')"
echo "script: shown"
for try in 1 2; do
	read -r line </dev/tty1
	echo "typed: $line" >/dev/tty0
done
sleep 1000
