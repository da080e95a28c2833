"""Build a directory tree of Debian software and compiled programs that runs natively and in a guest: the same bits everywhere.

Packages are downloaded and unpacked into the cache, never installed. Of each, only the files a workload names are taken, and the shared
libraries they need, found by reading their dynamic sections."""
import glob
import os
import re
import shutil
import subprocess
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
SCRIPTS = os.path.join(HERE, "..", "scripts")
PROGRAMS = os.path.join(HERE, "programs")
LIBRARY_FOLDERS = ("lib/x86_64-linux-gnu", "usr/lib/x86_64-linux-gnu", "usr/lib/x86_64-linux-gnu/ceph")
LOADER = "ld-linux-x86-64.so.2"
# Enters a tree without privileges: in namespaces of its own, with a /tmp, /proc and /dev as a guest has them.
ENTER = r"""
mount -t tmpfs tmpfs "$1/tmp" && mount --rbind /dev "$1/dev" || exit
mount -t proc proc "$1/proc" 2>/dev/null || mount --rbind /proc "$1/proc" || exit
exec chroot "$1" /bin/sh "$2"
"""


class Packages:
    """Debian packages, unpacked into the cache when first asked for."""

    def __init__(self, cache):
        self.cache = cache
        self.closures = {}

    def folder(self, package):
        folder = os.path.join(self.cache, "packages", package)
        if not os.path.isdir(folder):
            os.makedirs(os.path.dirname(folder), exist_ok=True)
            subprocess.run([os.path.join(SCRIPTS, "guest-package.sh"), package, folder], stdout=sys.stderr, check=True)
        return folder

    def dependencies(self, package):
        """The library packages that PACKAGE depends on."""
        with open(os.path.join(self.folder(package), "depends"), encoding="utf-8") as file:
            names = [re.split(r"[ (|:]", entry.strip())[0] for line in file for entry in line.split(":", 1)[1].split(",")]
        return [name for name in names if re.match(r"lib|zlib", name)]

    def closure(self, packages):
        """PACKAGES and the library packages they depend on, nearest first; unpacked as they are asked for."""
        found = list(packages)
        for package in found:
            yield package
            found += [name for name in dict.fromkeys(self.dependencies(package)) if name not in found]


def needed(path):
    """The shared libraries an ELF file asks for, its loader among them."""
    with open(path, "rb") as file:
        if file.read(4) != b"\x7fELF":
            return []
    text = subprocess.run(["readelf", "-W", "-l", "-d", path], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, check=False, text=True).stdout
    libraries = re.findall(r"\(NEEDED\).*\[(.*)\]", text)
    return libraries + ([LOADER] if "program interpreter" in text else [])


class Tree:
    """A tree under construction at ROOT."""

    def __init__(self, root, packages, busybox):
        self.root = root
        self.packages = packages
        for folder in ("bin", "bench", "tmp", "proc", "dev", "lib64"):
            os.makedirs(os.path.join(root, folder), exist_ok=True)
        shutil.copy2(busybox, os.path.join(root, "bin", "busybox"))
        for applet in subprocess.run([busybox, "--list"], stdout=subprocess.PIPE, check=True, text=True).stdout.split():
            if applet != "busybox":
                os.symlink("busybox", os.path.join(root, "bin", applet))
        os.symlink(f"/{LIBRARY_FOLDERS[0]}/{LOADER}", os.path.join(root, "lib64", LOADER))
        for path in glob.glob(os.path.join(PROGRAMS, "*.*")):
            if not path.endswith(".c"):
                shutil.copy2(path, os.path.join(root, "bench"))

    def copy(self, source, path):
        """Take one file or folder of an unpacked package, and what it links to or needs."""
        target = os.path.join(self.root, path)
        if os.path.isdir(source) and not os.path.islink(source):
            return [name for entry in sorted(os.listdir(source)) for name in self.copy(os.path.join(source, entry), os.path.join(path, entry))]
        if os.path.islink(target) and os.readlink(target) == "busybox":
            os.remove(target)  # the real one is wanted
        if os.path.lexists(target):
            return []
        os.makedirs(os.path.dirname(target), exist_ok=True)
        if os.path.islink(source):
            os.symlink(os.readlink(source), target)
            real = os.path.normpath(os.path.join(os.path.dirname(path), os.readlink(source)))
            return self.copy_from(os.path.dirname(source), os.path.dirname(path), real) if not real.startswith("/") else []
        shutil.copy2(source, target)
        return needed(source)

    def copy_from(self, folder, under, path):
        source = os.path.normpath(os.path.join(folder, os.path.relpath(path, under)))
        return self.copy(source, path) if os.path.lexists(source) else []

    def library(self, name, packages):
        for package in self.packages.closure(packages):
            for folder in LIBRARY_FOLDERS:
                source = os.path.join(self.packages.folder(package), folder, name)
                if os.path.lexists(source):
                    return self.copy(source, os.path.join(folder, name))
        raise LookupError(f"neither {' '.join(packages)} nor what they depend on has the library {name}")

    def libraries(self, names, packages):
        """Take the libraries NAMES, and theirs."""
        names = list(names)
        for name in names:
            if not any(os.path.lexists(os.path.join(self.root, folder, name)) for folder in LIBRARY_FOLDERS):
                names += [name for name in self.library(name, packages) if name not in names]

    def software(self, name, row):
        for pattern in row["files"]:
            found = [(package, path) for package in row["packages"]
                     for path in glob.glob(os.path.join(self.packages.folder(package), pattern))]
            if not found:
                raise LookupError(f"{name}: none of the packages {' '.join(row['packages'])} has {pattern}")
            for package, path in found:
                self.libraries(self.copy(path, os.path.relpath(path, self.packages.folder(package))), row["packages"])

    def program(self, name, row, packages):
        """Make a program with the native compiler, or the output of a command run in this tree."""
        target = os.path.join(self.root, "bench", name)
        if "command" in row:
            with open(target, "wb") as file:
                subprocess.run(enter(self.root, self.script("generate", row["command"] + " 2>/dev/null")), stdout=file, check=True)
            return
        folders = [self.packages.folder(package) for package in packages]
        links = [os.path.join(self.root, folder, library) for library in row.get("libraries", []) for folder in LIBRARY_FOLDERS]
        links = [path for path in links if os.path.exists(path)]
        source = next(path for path in [os.path.join(PROGRAMS, row["source"])]
                      + [os.path.join(folder, "usr/include/stb", row["source"]) for folder in folders] if os.path.exists(path))
        extra = ["-Wl,--allow-shlib-undefined"] if links else []
        subprocess.run(["gcc", *row["flags"], "-o", target, source, *links, *(["-lm"] if "-E" not in row["flags"] else []), *extra], check=True)
        if packages:
            self.libraries(needed(target), packages)

    def modules(self, folder, names):
        """Take drivers of the kernel unpacked in FOLDER, to be loaded in this order."""
        target = os.path.join(self.root, "bench", "modules")
        os.makedirs(target)
        for number, name in enumerate(names):
            path = glob.glob(os.path.join(folder, "lib/modules/*/kernel/drivers", name + ".ko"))[0]
            shutil.copy2(path, os.path.join(target, f"{number:02}-{os.path.basename(path)}"))

    def script(self, name, text):
        with open(os.path.join(self.root, "bench", name), "w", encoding="utf-8") as file:
            file.write(text)
        return "/bench/" + name

    def pack(self, output):
        """Everything but busybox, which the initramfs has already, as a cpio archive to be appended to it."""
        files = subprocess.run(["find", ".", "-path", "./bin", "-prune", "-o", "-print"], cwd=self.root, stdout=subprocess.PIPE, check=True).stdout
        with open(output, "ab") as file:
            file.write(bytes(-file.tell() % 4))
            file.flush()
            subprocess.run(["cpio", "--quiet", "-o", "-H", "newc", "-R", "0:0"], cwd=self.root, input=files, stdout=file, check=True)


def enter(root, script):
    """The command that runs SCRIPT of the tree natively."""
    return ["env", "-i", "PATH=/usr/sbin:/usr/bin:/sbin:/bin", "unshare", "--user", "--map-root-user", "--mount", "--pid", "--fork", "sh", "-c", ENTER, "enter", root, script]
