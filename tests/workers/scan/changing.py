"""Hosts beside those of ``lab`` that become others while nobody looks: what there is before, and what there is then.

Real servers: sshd, and a copy of it that says another version, nginx with and without TLS, redis, and nft.
"""

from __future__ import annotations

import hashlib
import re
import ssl
import subprocess
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import NamedTuple

from tests.workers.scan import lab

SSHD, NGINX = "/usr/sbin/sshd", "/usr/sbin/nginx"


class World(NamedTuple):
    """What listens, by address and then by port, and what is dropped. Words: ``ssh``, ``other ssh``, ``http``,
    ``https``, ``other https`` (another certificate), ``redis``. An address that is not in here is nobody's."""

    hosts: Mapping[str, Mapping[int, str]]
    dropped: tuple[tuple[str, int], ...] = ()


class Servers:
    """Starts worlds. ``certificates`` are the SHA-256 of ``https`` and ``other https``; ``ssh`` the version said."""

    def __init__(self, net: lab.Network, place: Path) -> None:
        self._net = net
        self._place = place
        lab.run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(place / "host_key"))
        self._redis = lab.redis_server(place)
        self._other_sshd = place / "sshd"
        program = Path(SSHD).read_bytes()
        [self.ssh] = set(re.findall(rb"OpenSSH_(\d\.\d)p1", program))
        self.other_ssh = b"%d.%d" % (int(self.ssh[:1]) - 1, int(self.ssh[2:]))
        self._other_sshd.write_bytes(program.replace(b"OpenSSH_" + self.ssh, b"OpenSSH_" + self.other_ssh))
        self._other_sshd.chmod(0o755)
        self.certificates = {name: self._certificate(name) for name in ("https", "other https")}

    def _certificate(self, name: str) -> str:
        file = self._place / f"{name}.crt"
        made = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
        lab.run(*made, "-subj", f"/CN={lab.NAME}", "-keyout", str(self._place / f"{name}.key"), "-out", str(file))
        return hashlib.sha256(ssl.PEM_cert_to_DER_cert(file.read_text())).hexdigest()

    @contextmanager
    def up(self, world: World) -> Iterator[None]:
        """That world, all of it listening; none of it is left afterwards."""
        with ExitStack() as stack:
            for address in world.hosts:
                lab.batch(self._net.far, f"address add {address}/32 dev lo")
                stack.callback(lab.batch, self._net.far, f"address delete {address}/32 dev lo")
            ends = [(address, port, what) for address, ports in world.hosts.items() for port, what in ports.items()]
            for command in self._commands(ends):
                stack.enter_context(self._started(command))
            if world.dropped:
                drops = " ".join(f"ip daddr {address} tcp dport {port} drop;" for address, port in world.dropped)
                chain = f"chain in {{ type filter hook input priority -10; {drops} }};"
                self._net.reload(f"table inet changing {{ {chain} }}\n")
                stack.callback(self._net.reload, "delete table inet changing\n")
            self._await({(address, port) for address, port, _ in ends})
            yield

    def _commands(self, ends: Iterable[tuple[str, int, str]]) -> Iterator[list[str]]:
        by_kind: dict[str, list[str]] = {}
        for address, port, what in ends:
            by_kind.setdefault(what, []).append(f"{address}:{port}")
        for name, program in (("ssh", SSHD), ("other ssh", str(self._other_sshd))):
            if listens := by_kind.get(name):
                settings = self._place / f"{name}.conf"
                lines = "".join(f"ListenAddress {end}\n" for end in listens)
                settings.write_text(f"{lines}HostKey {self._place}/host_key\nPidFile none\nUsePAM no\n")
                yield [program, "-D", "-e", "-f", str(settings)]
        yield self._nginx(by_kind)
        for end in by_kind.get("redis", ()):
            bind, _, at = end.partition(":")
            yield [str(self._redis), "--bind", bind, "--port", at, "--save", "", "--protected-mode", "no"]

    def _nginx(self, by_kind: Mapping[str, list[str]]) -> list[str]:
        place = self._place
        servers = [
            f"server {{ {' '.join(f'listen {end}{secure};' for end in by_kind[name])}"
            + (f' ssl_certificate "{place}/{name}.crt"; ssl_certificate_key "{place}/{name}.key";' if secure else "")
            + " return 200 hello; }"
            for name, secure in (("http", ""), ("https", " ssl"), ("other https", " ssl"))
            if name in by_kind
        ]
        settings = place / "nginx.conf"
        paths = "".join(f"{kind}_temp_path {place}; " for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi"))
        settings.write_text(
            f"daemon off; pid {place}/nginx.pid; user root; worker_processes 1; error_log stderr; events {{ }}\n"
            f"http {{ access_log off; {paths}\n{' '.join(servers)} }}\n"
        )
        return [NGINX, "-p", str(place), "-c", str(settings), "-e", "stderr"]

    @contextmanager
    def _started(self, command: list[str]) -> Iterator[None]:
        with (
            (self._place / "servers.log").open("ab") as log,
            subprocess.Popen(self._net.there(*command), stdin=subprocess.DEVNULL, stdout=log, stderr=log) as process,
        ):
            try:
                yield
            finally:
                process.terminate()
                process.wait(lab.PATIENCE)

    def _await(self, ends: set[tuple[str, int]]) -> None:
        until = time.monotonic() + lab.PATIENCE
        while missing := ends - lab.listening(self._net):
            if time.monotonic() > until:
                raise TimeoutError(f"nobody listens on {sorted(missing)}: {self._place}/servers.log")
            time.sleep(0.02)
