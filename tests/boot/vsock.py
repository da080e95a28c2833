#!/usr/bin/env python3
"""Boot an unmodified distribution kernel in nadir with a virtio socket device, and check what comes through it in both directions.

usage: vsock.py --nadir NADIR --guest PROGRAM [--kernel DIRECTORY] [--cpus N] [-- OPTION...]

PROGRAM is vsock_guest.c, linked statically."""
import argparse
import glob
import hashlib
import os
import random
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time

HERE = os.path.dirname(os.path.abspath(__file__))
INITRAMFS = os.path.join(HERE, "..", "..", "scripts", "initramfs.sh")
MODULES = ["drivers/virtio/virtio", "drivers/virtio/virtio_ring", "drivers/virtio/virtio_pci_modern_dev", "drivers/virtio/virtio_pci_legacy_dev",
           "drivers/virtio/virtio_pci", "net/vmw_vsock/vsock", "net/vmw_vsock/vmw_vsock_virtio_transport_common",
           "net/vmw_vsock/vmw_vsock_virtio_transport"]
CID = 42


def lines(first, step, last):
    return "".join(f"{i}\n" for i in range(first, last + 1, step)).encode()


def short(data):
    return hashlib.md5(data).hexdigest()[:12]


def receive(connection, pause=0):
    """All that comes; with a pause in which nothing is taken."""
    time.sleep(pause)
    data = b""
    while more := connection.recv(1 << 16):
        data += more
    return data


def serve(path, port, answer):
    """Answer each program of the guest's that connects to the port."""
    server = socket.socket(socket.AF_UNIX)
    server.bind(f"{path}_{port}")
    server.listen(8)

    def one(connection):
        with connection:
            connection.sendall(answer(connection))

    def loop():
        while True:
            threading.Thread(target=one, args=(server.accept()[0],), daemon=True).start()

    threading.Thread(target=loop, daemon=True).start()


def connect(path, port):
    """Connect to the guest's port: the socket, or None if nobody listens there."""
    connection = socket.socket(socket.AF_UNIX)
    connection.connect(path)
    connection.sendall(f"CONNECT {port}\n".encode())
    answer = b""
    while not answer.endswith(b"\n"):
        more = connection.recv(1)
        if not more:
            connection.close()
            return None
        answer += more
    assert answer.startswith(b"OK "), answer
    return connection


def connect_soon(path, port):
    """Likewise; it may take a moment until the guest listens."""
    while not (connection := connect(path, port)):
        time.sleep(0.05)
    return connection


class Host:
    """What is done here when the guest says that it listens."""

    def __init__(self, path):
        self.path, self.wrong = path, []
        self.data = random.randbytes(6 << 20)

    def exchange(self):
        if connect(self.path, 6999):
            self.wrong.append("somebody answers at a port where nobody listens")
        with connect_soon(self.path, 6000) as connection:
            sender = threading.Thread(target=self.send, args=(connection,))
            sender.start()
            got = receive(connection)
            sender.join()
        if got != lines(1, 1, 300000):
            self.wrong.append(f"{len(got)} bytes came from the guest, and they are not those sent")

    def send(self, connection):
        connection.sendall(self.data)
        connection.shutdown(socket.SHUT_WR)

    def leave(self):
        """Go away in the middle."""
        with connect_soon(self.path, 6001) as connection:
            connection.recv(1000)

    def nonsense(self):
        for text in (b"HELLO\n", b"CONNECT\n", b"CONNECT x\n", b"CONNECT 5 6\n", b"CONNECT 99999999999999\n", 100 * b"x"):
            with socket.socket(socket.AF_UNIX) as connection:
                connection.connect(self.path)
                connection.sendall(text)
                try:
                    if connection.recv(100):
                        self.wrong.append(f"{text} was answered")
                except ConnectionResetError:
                    pass


def run(args, work):
    cache = os.environ.get("NADIR_CACHE", os.path.expanduser("~/.cache/nadir"))
    kernels = glob.glob(os.path.join(cache, args.kernel, "boot", "vmlinuz-*"))
    if not kernels:
        sys.exit(f"no kernel in {cache}/{args.kernel}: make test fetches it")
    modules = os.path.join(glob.glob(os.path.join(cache, args.kernel, "lib", "modules", "*"))[0], "kernel")
    initrd, path, program = (os.path.join(work, name) for name in ("initrd.gz", "socket", "vsock_guest"))
    shutil.copy(args.guest, program)
    subprocess.run([INITRAMFS, os.path.join(cache, "busybox", "bin", "busybox"), initrd, os.path.join(HERE, "vsock.sh"), program,
                    *(os.path.join(modules, name + ".ko") for name in MODULES)], check=True)
    serve(path, 5000, lambda connection: short(receive(connection)).encode() + b"\n")
    serve(path, 5001, lambda connection: short(receive(connection, 2)).encode() + b"\n")
    serve(path, 5002, lambda connection: connection.recv(100))
    host = Host(path)
    actions = {"listening: 6000": host.exchange, "listening: 6001": host.leave, "script: end": lambda: None}
    command = [args.nadir, "run", "--kernel", kernels[0], "--initrd", initrd, "--cpus", str(args.cpus), "--memory", "256M",
               "--vsock", f"cid={CID},path={path}", "--append", "console=ttyS0 panic=-1", *args.options]
    with subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE) as process:
        timer = threading.Timer(args.timeout, process.kill)
        timer.start()
        output = []
        for line in process.stdout:
            output.append(line.decode(errors="replace").rstrip("\r\n"))
            if output[-1].startswith("cid: "):
                host.nonsense()
            threading.Thread(target=actions.get(output[-1], lambda: None), daemon=True).start()
        timer.cancel()
    return host, output, process.returncode


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--nadir", required=True)
    parser.add_argument("--guest", required=True)
    parser.add_argument("--kernel", default="linux-cloud")
    parser.add_argument("--cpus", type=int, default=1)
    parser.add_argument("--timeout", type=int, default=240)
    parser.add_argument("options", nargs="*")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as work:
        host, output, status = run(args, work)
    expected = {
        "cid": str(CID),
        "sent": short(lines(1, 1, 500000)),
        "slowly": short(lines(1, 1, 500000)),
        "at once": "".join(short(lines(i, 4, 800000)) + " " for i in range(1, 5)),
        "nobody": "reset by peer",
        "no such machine": "1",
        "received": short(host.data),
        "left": "1",
        "echo": "hello",
        "errors": "0",
        "script": "end",
    }
    got = dict(line.split(": ", 1) for line in output if ": " in line and not line.startswith("["))
    wrong = [f"{key}: expected '{value}', got '{got.get(key)}'" for key, value in expected.items() if got.get(key) != value]
    wrong += host.wrong + ([f"exit status {status}"] if status else [])
    print("\n".join(output + wrong) if wrong else f"{len(expected)} lines are as they should be")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
