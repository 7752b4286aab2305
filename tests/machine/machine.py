"""A machine of our own, for what a container or a borrowed kernel cannot show.

Debian's own kernel boots under qemu with the host's file system as its root: shared read-only over 9p, with a layer of
memory on top that takes every write. So the tests inside run the very checkout, Python and nmap of the host, and yet
own a unified cgroup hierarchy, the wall clock and all of the memory. Nothing is built but an initramfs of 2 MB; the
kernel comes from apt as a package that is unpacked, never installed.

Formats: newc in the kernel's Documentation/driver-api/early-userspace/buffer-format.rst, ``depends=`` of a module as
modinfo(8) prints it.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import stat
import subprocess
import sys
import tarfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
CACHE = ROOT / ".cache" / "machine"
INIT = Path(__file__).with_name("init.py")

MEMORY = "1G"
PROCESSORS = "2"
BOOT_TIMEOUT = 600.0
"""Seconds for one whole run. It takes 20 under KVM; without it every instruction is emulated."""

MODULES = ("virtio_pci", "9pnet_virtio", "9p", "overlay", "veth")

# The first program: loads the modules, stacks a writable layer on the host's files, and hands over to init.py.
FIRST = """\
#!/bin/busybox sh
set -e
for module in {modules}; do /bin/busybox insmod /modules/$module.ko; done
b=/bin/busybox
$b mount -t tmpfs tmpfs /layers
$b mkdir /layers/host /layers/upper /layers/work
$b mount -t 9p -o ro,trans=virtio,version=9p2000.L,cache=loose,msize=262144 host /layers/host
$b mount -t overlay -o lowerdir=/layers/host,upperdir=/layers/upper,workdir=/layers/work overlay /root
exec $b switch_root /root {python} {init} {out}
"""


def run_tests(inside: Path, out: Path) -> str:
    """Boot, run pytest on ``inside``, power off. ``out`` receives ``results.xml``; returned is the console's text."""
    kernel, initrd = _boot_files()
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    (out / "command").write_text("\0".join([sys.executable, "-m", "pytest", "-p", "no:cacheprovider", str(inside)]))
    command = [
        *("qemu-system-x86_64", *_processor(), "-smp", PROCESSORS, "-m", MEMORY),
        *("-nodefaults", "-no-user-config", "-no-reboot", "-display", "none", "-serial", "stdio", "-monitor", "none"),
        *("-kernel", str(kernel), "-initrd", str(initrd)),
        *("-append", "console=ttyS0 quiet panic=-1 mitigations=off cgroup_no_v1=all"),
        *("-virtfs", "local,path=/,mount_tag=host,security_model=none,readonly=on,multidevs=remap"),
        *("-virtfs", f"local,path={out},mount_tag=out,security_model=none"),
    ]
    ending = ""
    with (out / "console").open("wb") as console:
        try:
            subprocess.run(
                command, stdin=subprocess.DEVNULL, stdout=console, stderr=console, check=False, timeout=BOOT_TIMEOUT
            )
        except subprocess.TimeoutExpired:
            ending = f"\n(and did not power off within {BOOT_TIMEOUT:.0f} s)"
    return (out / "console").read_text(errors="replace") + ending


def _processor() -> list[str]:
    """The host's processor, or an emulated one where it is not to be had.

    ``/dev/kvm`` alone promises nothing: in some sandboxes it is there and the guest never starts.
    """
    flags = re.search(r"^flags\s*:(.*)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    able = flags is not None and bool({"vmx", "svm"} & set(flags[1].split()))
    if able and os.access("/dev/kvm", os.R_OK | os.W_OK):
        return ["-accel", "kvm", "-cpu", "host"]
    return ["-accel", "tcg,tb-size=512", "-cpu", "max"]


def _boot_files() -> tuple[Path, Path]:
    """The kernel and its initramfs, made anew when this file or the interpreter's path has changed."""
    recipe = hashlib.sha256(f"{Path(__file__).read_text()}{sys.executable}".encode()).hexdigest()
    made = CACHE / recipe[:16]
    kernel, initrd = made / "vmlinuz", made / "initrd"
    if not initrd.exists():
        shutil.rmtree(CACHE, ignore_errors=True)
        scratch = CACHE / "scratch"
        scratch.mkdir(parents=True)
        try:
            image, modules = _kernel(scratch)
            busybox = _unpack(_download("busybox-static", scratch), r"\./bin/busybox")["busybox"]
            made.mkdir()
            kernel.write_bytes(image)
            first = FIRST.format(modules=" ".join(modules), python=sys.executable, init=INIT, out="out")
            archive = _newc({"init": first.encode(), "bin/busybox": busybox}, modules)
            partial = made / "initrd.partial"
            partial.write_bytes(archive)
            partial.rename(initrd)
        finally:
            shutil.rmtree(scratch)
    return kernel, initrd


def _kernel(scratch: Path) -> tuple[bytes, dict[str, bytes]]:
    """Debian's kernel, and the modules of ``MODULES`` with all they depend on, in the order to load them."""
    meta = _apt("apt-cache", "depends", "linux-image-amd64", cwd=scratch)
    package = re.search(r"Depends: (linux-image-\S+)", meta)
    assert package, f"apt-cache knows no kernel behind linux-image-amd64: {meta}"
    found = _unpack(_download(package[1], scratch), r"\./boot/vmlinuz-.*|\./lib/modules/.*\.ko")
    image = next(content for name, content in found.items() if name.startswith("vmlinuz-"))
    available = {_module_name(name): content for name, content in found.items() if name.endswith(".ko")}
    ordered: dict[str, bytes] = {}

    def add(name: str) -> None:
        content = available[name]
        depends = re.search(rb"\0depends=([^\0]*)\0", content)
        for needed in depends[1].decode().split(",") if depends and depends[1] else []:
            if needed not in ordered:
                add(needed)
        ordered[name] = content

    for name in MODULES:
        add(name)
    return image, ordered


def _module_name(file: str) -> str:
    """``virtio-rng.ko`` is the module ``virtio_rng``: the kernel takes both for the same."""
    return file.removesuffix(".ko").replace("-", "_")


def _download(package: str, scratch: Path) -> Path:
    _apt("apt-get", "-o", "APT::Sandbox::User=root", "download", package, cwd=scratch)
    return next(scratch.glob(f"{package}_*.deb"))


def _apt(*command: str, cwd: Path) -> str:
    """Run apt; where it knows no packages yet, let it learn them first."""
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False)
    if done.returncode or not done.stdout:
        subprocess.run(["apt-get", "update"], capture_output=True, check=False)
        done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{' '.join(command)}: {done.stderr.strip()}"
    return done.stdout


def _unpack(package: Path, wanted: str) -> dict[str, bytes]:
    """The files of a .deb whose path matches ``wanted``, by base name."""
    found = {}
    with subprocess.Popen(["dpkg-deb", "--fsys-tarfile", package], stdout=subprocess.PIPE) as dpkg:
        with tarfile.open(fileobj=dpkg.stdout, mode="r|") as archive:
            for member in archive:
                if member.isfile() and re.fullmatch(wanted, member.name):
                    content = archive.extractfile(member)
                    assert content
                    found[Path(member.name).name] = content.read()
        assert dpkg.stdout
        dpkg.stdout.read()
    assert found, f"{package.name} holds nothing that matches {wanted}"
    return found


def _newc(programs: dict[str, bytes], modules: dict[str, bytes]) -> bytes:
    """A cpio archive in the format newc, as the kernel unpacks it."""
    entries: list[tuple[str, int, bytes]] = [
        (name, stat.S_IFDIR | 0o755, b"") for name in ("bin", "modules", "layers", "root")
    ]
    entries += [(name, stat.S_IFREG | 0o755, content) for name, content in programs.items()]
    entries += [(f"modules/{name}.ko", stat.S_IFREG | 0o644, content) for name, content in modules.items()]
    archive = bytearray()
    for number, (name, mode, content) in enumerate([*entries, ("TRAILER!!!", 0, b"")], start=1):
        path = name.encode() + b"\0"
        fields = (number, mode, 0, 0, 1, 0, len(content), 0, 0, 0, 0, len(path), 0)
        archive += b"070701" + b"".join(b"%08x" % field for field in fields) + path
        archive += bytes(-len(archive) % 4) + content
        archive += bytes(-len(archive) % 4)
    return bytes(archive)
