"""Reading screens: PNG files, and the text on them by the glyphs of the video BIOS's font."""
import struct
import zlib

ROM = "/usr/share/seabios/vgabios-stdvga.bin"
GLYPH = 16


def unfilter(kind, line, above, size):
    """A line of pixels of that many bytes, from what is left of it by one of PNG's five filters."""
    for i, byte in enumerate(line):
        left, up, corner = line[i - size] if i >= size else 0, above[i], above[i - size] if i >= size else 0
        near = min((left, up, corner), key=lambda value: abs(left + up - corner - value))
        line[i] = (byte + (0, left, up, (left + up) // 2, near)[kind]) & 255
    return bytes(line)


def decode_png(data):
    """Width, height and lines of RGB bytes, from RGB or RGBA."""
    assert data[:8] == b"\x89PNG\r\n\x1a\n"
    at, packed, width, height, pixel = 8, b"", 0, 0, 3
    while at < len(data):
        size, kind = struct.unpack(">I4s", data[at : at + 8])
        body = data[at + 8 : at + 8 + size]
        assert zlib.crc32(kind + body) == struct.unpack(">I", data[at + 8 + size : at + 12 + size])[0]
        if kind == b"IHDR":
            width, height = struct.unpack(">II", body[:8])
            assert body[8:] in (b"\x08\x02\0\0\0", b"\x08\x06\0\0\0")
            pixel = 3 if body[9] == 2 else 4
        packed += body if kind == b"IDAT" else b""
        at += 12 + size
    raw, lines, above = zlib.decompress(packed), [], bytes(pixel * width)
    for y in range(height):
        line = raw[y * (pixel * width + 1) : (y + 1) * (pixel * width + 1)]
        above = unfilter(line[0], bytearray(line[1:]), above, pixel)
        lines.append(above if pixel == 3 else bytes(byte for i, byte in enumerate(above) if i % 4 != 3))
    return width, height, lines


def font():
    with open(ROM, "rb") as file:
        rom = file.read()
    at = rom.index(bytes(18) + bytes.fromhex("7e81a58181bd9981817e"))
    return {rom[at + GLYPH * c : at + GLYPH * (c + 1)]: chr(c) for c in range(32, 127)}


def text(width, height, lines, glyphs, cell=None):
    """The characters of a screen of cells; what is none of ours becomes a question mark."""
    cell = cell or (9 if width == 720 else 8)
    rows = []
    for top in range(0, height - GLYPH + 1, GLYPH):
        row = ""
        for left in range(0, width - cell + 1, cell):
            dots = [[lines[top + y][3 * (left + x) : 3 * (left + x) + 3] for x in range(8)] for y in range(GLYPH)]
            colors = {dot for line in dots for dot in line}
            found = "?"
            for paper in colors:
                bits = bytes(sum((dot != paper) << (7 - x) for x, dot in enumerate(line)) for line in dots)
                found = glyphs.get(bits, found)
            row += found
        rows.append(row.rstrip())
    return "\n".join(rows)
