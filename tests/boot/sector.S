/* A boot sector that uses the BIOS as boot loaders do and reports through the debug console: what is in the second sector of its disk, the
 * memory the BIOS counts, and, by the BIOS, on its console. The first time it resets the machine, and the second time it ends it. */
	.code16
	.globl _start
_start:
	xor %ax, %ax
	mov %ax, %ds
	mov %ax, %es
	mov %ax, %ss
	mov $0x7c00, %sp
	mov %dl, drive
	mov $started, %si
	call report

	mov $packet, %si /* extended read */
	mov $0x42, %ah
	mov drive, %dl
	int $0x13
	jc failed
	mov $0x8000, %si
	call report

	xor %ebx, %ebx /* entries of the memory map */
	xor %bp, %bp
1:	mov $0xe820, %eax
	mov $24, %ecx
	mov $0x534d4150, %edx
	mov $0x9000, %di
	int $0x15
	jc failed
	inc %bp
	test %ebx, %ebx
	jnz 1b
	cmp $4, %bp
	jb failed

	mov $console, %si /* teletype */
1:	lodsb
	test %al, %al
	jz 2f
	mov $0x0e, %ah
	mov $7, %bx
	int $0x10
	jmp 1b

2:	mov $0x70, %al /* a byte of CMOS memory outlives a reset */
	out %al, $0x70
	in $0x71, %al
	inc %al
	mov %al, %ah
	mov $0x70, %al
	out %al, $0x70
	mov %ah, %al
	out %al, $0x71
	cmp $2, %al
	je done
	mov $0xcf9, %dx
	mov $6, %al
	out %al, %dx
	hlt
done:	mov $10, %al
	out %al, $0xf4
	hlt
failed:	mov $bad, %si
	call report
	mov $11, %al
	out %al, $0xf4
	hlt

report: lodsb
	test %al, %al
	jz 1f
	out %al, $0xe9
	jmp report
1:	ret

started: .asciz "sector: started\n"
console: .asciz "sector: console\r\n"
bad:	.asciz "sector: failed\n"
drive:	.byte 0
	.balign 4
packet:	.byte 16, 0 /* size */
	.word 1 /* sectors */
	.word 0x8000, 0 /* to */
	.quad 1 /* from */
	.org 510
	.word 0xaa55
