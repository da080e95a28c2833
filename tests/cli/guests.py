"""Guests of a few bytes, started in real mode at 0x7c00 (--protocol flat)."""


def out8(port, value):
    """mov dx, port; mov al, value; out dx, al"""
    return b"\xba" + port.to_bytes(2, "little") + b"\xb0" + bytes([value]) + b"\xee"


def out16(port, value):
    """mov dx, port; mov ax, value; out dx, ax"""
    return b"\xba" + port.to_bytes(2, "little") + b"\xb8" + value.to_bytes(2, "little") + b"\xef"


def say(text):
    """Write to the first serial port."""
    return b"".join(out8(0x3F8, c) for c in text.encode())


def debug_exit(value):
    return out8(0xF4, value)


HALT = b"\xf4\xeb\xfd"  # hlt; jmp back
DEAF_SPIN = b"\xfa\xeb\xfe"  # cli; jmp self
DEAF_HALT = b"\xfa" + HALT
POWER_OFF = out16(0x604, 1 << 13) + HALT  # PM1a control: SLP_TYP, SLP_EN
RESET = out8(0xCF9, 6) + HALT
# push 0, three times; mov bp, sp; lidt [bp]; int3: an exception without a table
TRIPLE_FAULT = b"\x6a\x00" * 3 + b"\x89\xe5\x0f\x01\x5e\x00\xcc"
WAIT_BYTE = b"\xba\xfd\x03\xec\xa8\x01\x74\xfb"  # mov dx, LSR; l: in al, dx; test al, 1; jz l
READ_BYTE = b"\xba\xf8\x03\xec"  # mov dx, RBR; in al, dx


def echo(greeting):
    """Say the greeting; give back every byte, power off after `q`."""
    body = WAIT_BYTE + READ_BYTE + b"\x3c\x71\x74\x03" + b"\xee"  # cmp al, 'q'; jz +3; out dx, al
    body += b"\xeb" + bytes([256 - len(body) - 2])  # jmp body
    return say(greeting) + body + POWER_OFF


def scribble():
    """Say hello, then count in every other page from 64 to 512 KiB, for ever."""
    # mov ax, 0x1000; l: mov ds, ax; inc word [0]; add ax, 0x200; cmp ax, 0x8000; jb l; jmp to the first
    return say("hello") + b"\xb8\x00\x10" + b"\x8e\xd8" + b"\xff\x06\x00\x00" + b"\x05\x00\x02" + b"\x3d\x00\x80" + b"\x72\xf2" + b"\xeb\xed"


def flood(count):
    """Write `count` (up to 65535) letters, then power off."""
    body = b"\xba\xf8\x03\xb0\x78"  # mov dx, THR; mov al, 'x'
    body += b"\xb9" + count.to_bytes(2, "little")  # mov cx, count
    return body + b"\xee\xe2\xfd" + POWER_OFF  # l: out dx, al; loop l
