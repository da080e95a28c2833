# Runs in the guest: what its kernel found of KVM's interface, and work that uses it. Looked at by paravirt.py.
dmesg | grep -E 'kvm-guest:|kvm-clock: Using'
for i in 1 2 3 4; do (for j in 1 2 3 4 5 6 7 8 9 10; do seq 1 2000 | sort -r | md5sum; sleep 0.01; done) >/dev/null & done; wait
echo "steal: $(awk '/^cpu / {print ($9 >= 0)}' /proc/stat)"
echo "errors: $(dmesg | grep -ciE 'BUG:|Oops|call trace|soft lockup|stall|unchecked MSR')"
echo "script: end"
