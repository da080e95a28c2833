"""Everyday Python: dictionaries, lists, strings, big integers, generators, classes and exceptions. Prints checksums."""
import sys


class Node:
    __slots__ = ("left", "right", "value")

    def __init__(self, depth, value):
        self.value = value
        self.left = Node(depth - 1, 2 * value) if depth else None
        self.right = Node(depth - 1, 2 * value + 1) if depth else None

    def sum(self):
        return self.value + (self.left.sum() + self.right.sum() if self.left else 0)


def words(count):
    seed, seen = 1, {}
    for _ in range(count):
        seed = seed * 1103515245 + 12345 & 0x7FFFFFFF
        word = f"w{seed % 997:x}"
        seen[word] = seen.get(word, 0) + 1
    return sum(n * len(w) for w, n in sorted(seen.items(), key=lambda item: (-item[1], item[0]))[:100])


def power(digits):
    value = 3 ** digits
    return sum(int(c) for c in str(value)) + value.bit_length()


def catching(count):
    caught = 0
    for i in range(count):
        try:
            caught += 10 // (i % 3)
        except ZeroDivisionError:
            caught += 1
    return caught


def floats(count):
    x = 0.5
    for _ in range(count):
        x = 3.7 * x * (1 - x)
    return x.hex()


def main():
    total, last = 0, ""
    for _ in range(int(sys.argv[1])):
        total += Node(10, 1).sum() + words(8000) + power(4000) + catching(8000)
        total += sum(a * b for a, b in zip(range(10000), reversed(range(10000))))
        last = floats(10000)
    print(total, last)


main()
