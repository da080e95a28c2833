# Runs in the guest and uses SATA disks and a CD-ROM drive by the kernel's own drivers, whose modules are in /files. Each line is checked by sata.py.
cd /files || exit
for module in crct10dif_common crct10dif_generic crc-t10dif crc64 crc64-rocksoft t10-pi scsi_common scsi_mod libata cdrom sd_mod sr_mod isofs libahci ahci; do
	insmod ./$module.ko $(tr ' ' '\n' </proc/cmdline | sed -n "s/^$module\.//p") || echo "module: $module"
done
wait_for() { for i in $(seq 100); do [ ! -e "$1" ] || return 0; sleep 0.1; done; echo "missing: $1"; }
forget() { sync; echo 3 >/proc/sys/vm/drop_caches; }
wait_for /sys/block/sr0; wait_for /sys/block/sda; wait_for /sys/block/sdb
disk=sda other=sdb # they come in any order
[ "$(cat /sys/block/sda/size)" -gt 100000 ] || disk=sdb other=sda
echo "disk: $(cat /sys/block/$disk/size) $(cat /sys/block/$disk/ro) $(cat /sys/block/$disk/device/model)"
echo "serial: $(dmesg | grep -c 'nadir SATA disk')"
echo "transfer: $(dmesg | grep -o 'configured for [A-Z]*' | sort -u | cut -d ' ' -f 3)"
echo "queue: $(dmesg | grep -o 'NCQ ([^)]*)' | sort -u)"
echo "cache: $(cat /sys/block/$disk/queue/write_cache)"
echo "read: $(dd if=/dev/$disk bs=1M count=8 2>/dev/null | md5sum | cut -c 1-12)"
echo "small: $(dd if=/dev/$disk bs=512 count=64 skip=3 iflag=direct 2>/dev/null | md5sum | cut -c 1-12)"
echo "read-only: $(md5sum </dev/$other | cut -c 1-12)"
seq 1 1000000 >/tmp/numbers
dd if=/tmp/numbers of=/dev/$disk bs=1M seek=8 conv=fsync 2>/dev/null && echo "fsync: done"
forget
echo "written: $(dd if=/dev/$disk bs=1M skip=8 2>/dev/null | head -c "$(wc -c </tmp/numbers)" | md5sum | cut -c 1-12)"
for i in 1 2 3 4; do # at once, in small pieces, each in its place
	(seq $i 4 900000 | head -c 524288 >/tmp/piece$i; dd if=/tmp/piece$i of=/dev/$disk bs=3072 seek=$((i * 1024)) conv=fsync 2>/dev/null) &
done
wait
forget
echo "pieces: $(for i in 1 2 3 4; do dd if=/dev/$disk bs=3072 skip=$((i * 1024)) 2>/dev/null | head -c 524288; done | md5sum | cut -c 1-12)"
for switch in /sys/block/$disk/device/scsi_disk/*/cache_type; do echo "write through" >$switch; done
dd if=/tmp/numbers of=/dev/$disk bs=64k seek=128 oflag=direct 2>/dev/null
echo "switched: $(cat /sys/block/$disk/queue/write_cache)"
echo "trim: $(cat /sys/block/$disk/queue/discard_max_bytes)"
head -c 524288 /tmp/numbers | dd of=/dev/$disk bs=1M seek=40 conv=fsync 2>/dev/null
blkdiscard -o 41943040 -l 524288 /dev/$disk 2>/dev/null; echo "trimmed: $(dd if=/dev/$disk bs=512k skip=80 count=1 iflag=direct 2>/dev/null | tr -d '\0' | wc -c)"
mkdir /cd && mount -t iso9660 -o ro /dev/sr0 /cd && echo "cdrom: $(md5sum </cd/numbers | cut -c 1-12)" && umount /cd
echo "medium: $(cat /sys/block/sr0/size) $(cat /sys/block/sr0/removable)"
echo 1 >/sys/block/$disk/device/delete; # a new scan resets the links
for host in /sys/class/scsi_host/host*; do echo '- - -' >$host/scan; done
wait_for /sys/block/sda; wait_for /sys/block/sdb
echo "again: $(dd if=/dev/sda bs=512 skip=6000 count=1 2>/dev/null | wc -c)"
echo "interrupts: $(grep ahci /proc/interrupts | grep -o 'PCI-MSI\|IO-APIC' | sort -u)"
echo "errors: $(dmesg | grep -ciE 'BUG:|Oops|call trace|ata[0-9].*(error|fail|exception|timeout)|nobody cared')"
dmesg | grep -iE 'BUG:|Oops|call trace|ata[0-9].*(error|fail|exception|timeout)|nobody cared' | head -5
dd if=/dev/zero of=/dev/$other bs=512 count=1 conv=fsync 2>/dev/null || echo "refused: write"
forget
echo "recovered: $(md5sum </dev/$other | cut -c 1-12)"
dmesg | grep -E 'ahci|ata[0-9]|sd [0-9]|sr [0-9]' | sed 's/^/log /'
echo "script: end"
