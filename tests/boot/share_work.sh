# What a guest does in a shared folder, and what this host does in another one: both print the same, and leave the same. The current folder is an empty one.
short() { md5sum | cut -c 1-12; }
seq 1 300000 >numbers
echo "contents: $(short <numbers) $(wc -c <numbers)"
echo more >>numbers
echo "appended: $(tail -n 1 numbers) $(wc -c <numbers)"
mkdir -p a/b/c "with space"
echo one >a/one && ln a/one a/b/two && ln -s ../one a/b/link && ln -s nowhere a/dangling
echo "links: $(stat -c '%h %F %s' a/one a/b/link a/dangling | tr '\n' ',') $(cat a/b/link) $(readlink a/b/link)"
echo new >a/b/two
echo "same file: $(cat a/one)"
cat a/dangling 2>/dev/null || echo "dangling: not there"
chmod 640 a/one && chmod 2750 a/b && chown 1000:1001 a/one
echo "attributes: $(stat -c '%a %u %g' a/one a/b | tr '\n' ',')"
touch -d '2001-02-03 04:05:06' a/one
echo "time: $(stat -c %Y a/one)"
mv a/one "with space/moved" && mv a/b "with space/"
echo "moved: $(cat "with space/b/two") $(ls -A a | tr '\n' ',') $(ls -A "with space" | sort | tr '\n' ',')"
echo x >target && echo y >source && mv source target && cat target
rmdir a 2>/dev/null || echo "rmdir: refused"
mkdir a/b 2>/dev/null && mkdir a/b 2>/dev/null || echo "mkdir: refused"
truncate -s 5000 numbers && echo "truncated: $(short <numbers)"
truncate -s 100000 numbers && echo "extended: $(short <numbers)"
dd if=/dev/zero of=sparse bs=1 count=1 seek=10000000 2>/dev/null && echo "sparse: $(wc -c <sparse) $([ "$(stat -c %b sparse)" -lt 1000 ] && echo small)"
fallocate -l 100000 room && echo "room: $(wc -c <room)"
exec 3<>open && echo kept >&3 && rm open && exec 4>open2 && mv open2 renamed && echo after >&4 && exec 4>&-
echo "open: $(cat /proc/self/fd/3) $(cat renamed)"
exec 3>&-
mkfifo pipe && (echo through >pipe &) && echo "pipe: $(cat pipe)"
mkdir many && (cd many && seq 1 700 | xargs touch) && echo "many: $(ls many | wc -l) $(ls many | sort -n | short) $(find many -type f | wc -l)"
rm many/?? && echo "fewer: $(ls many | wc -l)"
for i in 1 2 3 4; do # at once
	(seq $i 4 400000 >at-once-$i) &
done
wait
echo "at once: $(cat at-once-? | short)"
cp /files/busybox busybox 2>/dev/null || cp "$BUSYBOX" busybox
chmod 755 busybox && echo "program: $(./busybox echo runs)"
head -c 300000 busybox >part && sync && echo "part: $(cmp -s part busybox || echo shorter)"
cp -a "with space" copy && echo "copy: $(cat copy/moved) $(readlink copy/b/link)"
long=$(seq 1 80 | tr -d '\n' | head -c 150)
echo name >"$long" && echo "name: $(cat "$long")"
touch "$long$long" 2>/dev/null || echo "name: too long"
chmod 4755 part && echo z >>part && echo "set-user-ID: $(stat -c %a part)"
rm busybox part
