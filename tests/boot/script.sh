# Runs in the guest and looks at the machine as a user would. Each line is checked by boot.py.
echo "kernel: $(uname -sm)"
echo "cpus: $(grep -c ^processor /proc/cpuinfo)"
echo "sum: $(seq 1 1000 | awk '{s += $1} END {print s}')"
echo "hash: $(seq 1 10000 | sha256sum | cut -c 1-16)"
echo "pipe: $(printf 'b\na\nc\n' | sort | tr -d '\n')"
mkdir -p /tmp/d && for i in 1 2 3 4 5; do echo "$i" >/tmp/d/f$i; done
echo "files: $(cat /tmp/d/* | tr -d '\n')"
(sleep 0.2; echo "sleep: done") & wait
echo "clocksource: $(cat /sys/devices/system/clocksource/clocksource0/current_clocksource)"
echo "gzip: $(seq 1 5000 | gzip | gunzip | md5sum | cut -c 1-12)"
uptime() { cut -d ' ' -f 1 /proc/uptime | tr -d . | sed 's/^0*//'; } # in hundredths of a second
start=$(uptime); sleep 1; end=$(uptime)
echo "second: $((end - start >= 99 && end - start < 300))"
echo "errors: $(dmesg | grep -ciE 'BUG:|Oops|call trace|ACPI (error|warning)|ACPI BIOS (error|warning)|firmware bug|unchecked MSR')"
dmesg | grep -iE 'BUG:|Oops|call trace|ACPI (error|warning)|ACPI BIOS (error|warning)|firmware bug|unchecked MSR' | head -5
echo "script: end"
