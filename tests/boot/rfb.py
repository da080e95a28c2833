"""A small client of VNC: takes pictures by Raw or ZRLE, presses keys."""
import socket
import struct
import time
import zlib

RAW, ZRLE, DESKTOP_SIZE, QEMU_KEYS = 0, 16, -223, -258
CODES = {**dict(zip("1234567890-=", range(2, 14))), **dict(zip("qwertyuiop[]", range(16, 28))), **dict(zip("asdfghjkl;'`", range(30, 42))),
         **dict(zip("\\zxcvbnm,./", range(43, 54))), " ": 57, "\n": 28}


class Client:
    def __init__(self, path, encoding=ZRLE, timeout=60):
        end = time.monotonic() + timeout
        while True:
            try:
                self.socket = socket.socket(socket.AF_UNIX)
                self.socket.connect(path)
                break
            except OSError:
                assert time.monotonic() < end, "nobody listens"
                time.sleep(0.05)
        self.socket.settimeout(timeout)
        self.zlib = zlib.decompressobj()
        self.codes = False
        assert self.read(12) == b"RFB 003.008\n"
        self.socket.sendall(b"RFB 003.008\n")
        assert self.read(self.read(1)[0]) == b"\x01"
        self.socket.sendall(b"\x01")
        assert self.read(4) == bytes(4)
        self.socket.sendall(b"\x01")
        self.resize(*struct.unpack(">HH", self.read(4)))
        self.read(16)
        self.name = self.read(struct.unpack(">I", self.read(4))[0])
        encodings = [encoding, DESKTOP_SIZE, QEMU_KEYS]
        self.socket.sendall(struct.pack(f">BxH{len(encodings)}i", 2, len(encodings), *encodings))

    def read(self, size):
        data = b""
        while len(data) < size:
            more = self.socket.recv(size - len(data))
            assert more, "the server has closed the connection"
            data += more
        return data

    def resize(self, width, height):
        self.width, self.height = width, height
        self.lines = [bytearray(3 * width) for _ in range(height)]

    def set(self, x, y, width, data, bytes_per_pixel):
        """Little-endian pixels with red in the third byte."""
        for row in range(len(data) // (width * bytes_per_pixel)):
            for column in range(width):
                at = (row * width + column) * bytes_per_pixel
                self.lines[y + row][3 * (x + column) : 3 * (x + column) + 3] = data[at : at + 3][::-1]

    def rectangle(self):
        x, y, width, height, encoding = struct.unpack(">HHHHi", self.read(12))
        if encoding == DESKTOP_SIZE:
            self.resize(width, height)
        elif encoding == QEMU_KEYS:
            self.codes = True
        elif encoding == RAW:
            self.set(x, y, width, self.read(4 * width * height), 4)
        else:
            assert encoding == ZRLE and width <= 64 and height <= 64
            data = self.zlib.decompress(self.read(struct.unpack(">I", self.read(4))[0]))
            assert data[0] in (0, 1)
            self.set(x, y, width, data[1:] * (width * height) if data[0] else data[1:], 3)

    def update(self, incremental=True):
        self.socket.sendall(struct.pack(">BBHHHH", 3, incremental, 0, 0, self.width, self.height))
        kind, count = struct.unpack(">BxH", self.read(4))
        assert kind == 0
        for _ in range(count):
            self.rectangle()

    def type(self, text, by_code=True):
        for character in text:
            for down in (1, 0):
                if by_code:
                    self.socket.sendall(struct.pack(">BBHII", 255, 0, down, 0, CODES[character]))
                else:
                    self.socket.sendall(struct.pack(">BBxxI", 4, down, 0xFF0D if character == "\n" else ord(character)))

    def pointer(self, x, y, buttons=0):
        self.socket.sendall(struct.pack(">BBHH", 5, buttons, x, y))
