# Runs in the guest while GDB looks at it: linux.py reads what it prints.
address() { grep -E " $1\$" /proc/kallsyms | cut -d ' ' -f 1; }
echo "sethostname: $(address __x64_sys_sethostname)"
echo "uts: $(address init_uts_ns)"
echo "ready: 1"
read -r _
hostname first
hostname second
echo "hostname: $(hostname)"
taskset 2 hostname third
busybox true
echo "hostname: $(hostname)"
read -r _
echo "errors: $(dmesg | grep -ciE 'BUG:|Oops|call trace|stall|unstable|hung')"
dmesg | grep -iE 'BUG:|Oops|call trace|stall|unstable|hung' | head -5
echo "script: end"
