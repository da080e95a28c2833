"""Reading the memory of a snapshot (docs/snapshot-format.md): what the tests of incremental snapshots compare."""
import ctypes
import os
import struct

PAGE = 4096
ZERO, PLAIN, BASE, PAGES = range(4)


def unpack(packed, most):
    """By the library that nadir itself needs."""
    data = ctypes.create_string_buffer(most)
    library = ctypes.CDLL("libzstd.so.1")
    library.ZSTD_decompress.restype = ctypes.c_size_t
    size = library.ZSTD_decompress(data, ctypes.c_size_t(most), packed, ctypes.c_size_t(len(packed)))
    if size > most:
        raise ValueError("a chunk cannot be unpacked")
    return data.raw[:size]


def read(folder, statistics=None):
    """All of memory, with that of the bases. statistics: a dict that gets how many pages are stored here, and how long the chain is."""
    with open(os.path.join(folder, "memory"), "rb") as file:
        data = file.read()
    _, version, chunk_size, size, index = struct.unpack_from("<8sIIQQ", data)
    memory, stored = bytearray(size), 0
    if version > 1 and any(data[56:72]):
        with open(os.path.join(folder, "base"), encoding="ascii") as file:
            memory = read(os.path.join(folder, file.read().strip()))
    for chunk in range((size + chunk_size - 1) // chunk_size):
        offset, length, kind, _, packing = struct.unpack_from("<QIIII", data, index + 24 * chunk)
        content = data[offset:offset + length]
        if packing:
            content = unpack(content, 2 * chunk_size)
        at = chunk * chunk_size
        end = min(at + chunk_size, size)
        if kind == ZERO:
            memory[at:end] = bytes(end - at)
        elif kind == PLAIN:
            memory[at:end] = content
            stored += len(content) // PAGE
        elif kind == PAGES:
            stored += pages(memory, at, end, content, (chunk_size // PAGE + 63) // 64 * 8)
    if statistics is not None:
        statistics["stored"] = stored
    return memory


def pages(memory, at, end, stored, bitmap):
    """Lay stored pages over memory; their number."""
    count = 0
    for i in range((end - at) // PAGE):
        if stored[i // 8] >> i % 8 & 1:
            where = bitmap + count * PAGE
            memory[at + i * PAGE:at + (i + 1) * PAGE] = stored[where:where + PAGE]
            count += 1
    return count


def differing(a, b):
    """Addresses of the pages that differ."""
    return [at for at in range(0, max(len(a), len(b)), PAGE) if a[at:at + PAGE] != b[at:at + PAGE]]
