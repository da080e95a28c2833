"""Python's own libraries, C extensions among them, with results that are the same everywhere."""
import array
import binascii
import bz2
import ctypes
import datetime
import decimal
import fractions
import hashlib
import itertools
import json
import lzma
import math
import random
import re
import sqlite3
import statistics
import struct
import threading
import zlib

random.seed(12345)
data = bytes(random.randrange(256) if i % 3 else 65 for i in range(5000))
print("zlib", binascii.hexlify(hashlib.sha256(zlib.compress(data, 9)).digest()).decode(), zlib.crc32(data), zlib.adler32(data))
print("bz2", hashlib.md5(bz2.compress(data)).hexdigest(), bz2.decompress(bz2.compress(data)) == data)
print("lzma", hashlib.sha1(lzma.compress(data, preset=3)).hexdigest(), lzma.decompress(lzma.compress(data, preset=3)) == data)
print("hashes", *(hashlib.new(name, data).hexdigest()[:16] for name in ("blake2b", "sha3_512", "sha512", "md5")))
print("scrypt", hashlib.scrypt(b"word", salt=b"pepper", n=64, r=8, p=1).hex()[:32])
decimal.getcontext().prec = 60
print("decimal", decimal.Decimal(2).sqrt(), decimal.Decimal("1.1").exp(), (decimal.Decimal(7) / 3).ln())
print("fraction", sum(fractions.Fraction(1, n) for n in range(1, 40)))
print("pow", pow(3, 10 ** 30 + 7, 2 ** 255 - 19), math.factorial(60), math.isqrt(10 ** 41), math.gcd(2 ** 90, 6 ** 50))
print("struct", struct.pack("<hIqfd", -2, 7, -1 << 60, 1.5, math.pi).hex(), struct.unpack(">e", b"\x35\x55"))
print("array", sum(array.array("d", (math.sin(i) for i in range(1000)))).hex())
print("random", random.random(), random.gauss(0, 1), random.sample(range(100), 5), random.getrandbits(100))
print("stats", statistics.mean(data), statistics.stdev(data[:500]), statistics.quantiles(data[:99], n=4))
print("json", hashlib.md5(json.dumps({str(i): [i / 7, None, "é\n"] for i in range(300)}).encode()).hexdigest())
print("re", len(re.findall(rb"A[^A]{2}(?=A)|[\x80-\xff]+", data)), re.sub(r"(\w+) (\w+)", r"\2 \1", "hello world"))
print("date", datetime.date(2024, 2, 29) + datetime.timedelta(days=366), datetime.datetime(1999, 12, 31).isocalendar())
print("combinations", sum(1 for c in itertools.combinations(range(10), 5) if sum(c) % 5 == 0))
print("ctypes", ctypes.CDLL(None).abs(-5), ctypes.c_uint8(300).value, ctypes.sizeof(ctypes.c_longdouble))
base = sqlite3.connect(":memory:")
base.execute("CREATE TABLE t (a INTEGER, b REAL)")
base.executemany("INSERT INTO t VALUES (?, ?)", ((i % 13, i / 3) for i in range(1000)))
print("sqlite3", base.execute("SELECT a, sum(b) FROM t GROUP BY a ORDER BY 2 DESC LIMIT 2").fetchall())

total, lock = [0], threading.Lock()


def add(count):
    for _ in range(count):
        with lock:
            total[0] += 1


threads = [threading.Thread(target=add, args=(500,)) for _ in range(4)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
print("threads", total[0])
