"""A network of known truth to scan: 64 hosts with real servers, and some at the end of a bad way (``truth``).

Two network namespaces. In the one is who scans; in the other nginx, sshd, redis, dnsmasq and the listeners of
``servers``, each bound to its addresses, and nft for everything that a firewall does. One namespace answers for the
whole of ``MANY_PREFIX``: a route of the kind ``local`` says that each address of it is here.
"""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path

from tests.workers.scan import wire
from tests.workers.scan.truth import (
    FAR,
    FAR6,
    FAR_HOSTS,
    HOSTS,
    INTERFACE,
    LINK_LOCAL,
    LOCAL,
    NEAR,
    NEAR6,
    WAYS,
    Truth,
    of_kind,
)

PATIENCE = 20.0
PREFIX, PREFIX6 = "10.99.0.0/24", "fd99::/64"
FAR_PREFIX = "10.98.0.0/24"
MANY_PREFIX = "10.97.0.0/20"
"""Behind ``FAR``: each of its 4,096 addresses answers a ping, and all ports are closed."""
SPARSE_PREFIX = "10.97.16.0/20"
"""The same, but that only each sixteenth, from 10.97.16.1 on, is not silent."""
NAME = "lab.test"
"""What the DNS servers know, as ``10.99.0.1``."""

_SSH_ADDRESSES = 16  # sshd listens on no more, MAX_LISTEN_SOCKS in its sshd.c
_PYTHON = {"silent", "late", "closes", "tarpit"}
_ONE_LISTENER = 9
_EVERYTHING = of_kind("says open to everything")[0].address
_MANY = of_kind("many services")[0].address


class Network:
    """What is up while ``network`` runs. ``near`` is the name of the namespace of who scans."""

    def __init__(self, name: str) -> None:
        self.near, self.far = f"{name}-n", f"{name}-f"

    def inside(self, *command: str) -> list[str]:
        """A command where the scanner is."""
        return ["ip", "netns", "exec", self.near, *command]

    def there(self, *command: str) -> list[str]:
        """A command where the servers are, which ends with us."""
        return ["ip", "netns", "exec", self.far, "setpriv", "--pdeathsig", "KILL", *command]

    def reload(self, rules: str) -> None:
        """More rules of nft(8) where the servers are, or others: ``table inet lab`` is what is in force."""
        run(*self.there("nft", "-f", "-"), told=rules)


@contextmanager
def network(place: Path) -> Iterator[Network]:
    """Everything is up and listens; ``place`` is a directory for configurations and logs."""
    net = Network(f"scan-test-{os.getpid()}-{time.monotonic_ns()}")
    with ExitStack() as stack:
        for name in (net.near, net.far):
            run("ip", "netns", "add", name)
            stack.callback(run, "ip", "netns", "delete", name)
        _wire(net)
        _serve(stack, net, place)
        _carry(stack, net)
        net.reload(_rules())
        _await_listeners(net)
        yield net


def entered(net: Network) -> AbstractContextManager[None]:
    """This thread is where the scanner is; a socket that it makes there stays there."""
    return wire.entered(net.near)


def _wire(net: Network) -> None:
    # No waiting for duplicate addresses; and Linux limits its ICMP messages by whom they go to, which is one for all.
    settings = ["net.ipv6.conf.default.accept_dad=0", "net.ipv6.icmp.ratelimit=0", "net.ipv4.icmp_ratelimit=0"]
    optional = [
        "net.ipv4.icmp_msgs_per_sec=1000000",
        "net.ipv4.icmp_msgs_burst=100000",
    ]  # of each namespace, since 6.12
    for name in (net.near, net.far):
        run("ip", "netns", "exec", name, "sysctl", "-q", "-w", *settings)
        run("ip", "netns", "exec", name, "sysctl", "-q", "-e", "-w", *optional)
    own = [host.address for host in (*HOSTS, *FAR_HOSTS) if ":" not in host.address]
    six = [host.address for host in HOSTS if ":" in host.address]
    batch(
        net.near,
        "link set lo up",
        f"link add {INTERFACE} address 02:00:00:00:99:fe type veth"
        f" peer name {INTERFACE} address 02:00:00:00:99:fd netns {net.far}",
        f"address add {NEAR}/24 dev {INTERFACE}",
        f"address add {NEAR6}/64 dev {INTERFACE} nodad",
        f"link set {INTERFACE} up",
        f"route add {MANY_PREFIX} via {FAR}",
        f"route add {SPARSE_PREFIX} via {FAR}",
        f"ntable change name arp_cache dev {INTERFACE} retrans 100",  # who is not there is known soon
    )
    batch(
        net.far,
        "link set lo up",
        f"address add {FAR}/24 dev {INTERFACE}",
        f"address add {FAR6}/64 dev {INTERFACE} nodad",
        f"address add {LINK_LOCAL}/64 dev {INTERFACE} nodad",
        *(f"address add {address}/64 dev {INTERFACE} nodad" for address in six),
        *(f"address add {address}/32 dev lo" for address in own),
        f"link set {INTERFACE} up",
        f"route add local {MANY_PREFIX} dev lo",
        f"route add local {SPARSE_PREFIX} dev lo",
    )


def _carry(stack: ExitStack, net: Network) -> None:
    """The bad way, and who is at the end of it."""
    link = [sys.executable, str(Path(__file__).with_name("link.py")), f"/run/netns/{net.far}", json.dumps(WAYS)]
    stack.enter_context(ready(net.inside("setpriv", "--pdeathsig", "KILL", *link)))
    batch(
        net.near, "address add 10.96.0.1/32 dev way", "link set way up", f"route add {FAR_PREFIX} dev way src 10.96.0.1"
    )
    batch(net.far, "link set way up", "route add 10.96.0.1 dev way")


def _serve(stack: ExitStack, net: Network, place: Path) -> None:
    hosts = (*HOSTS, *FAR_HOSTS, LOCAL)
    wanted = [
        (host.address, [port for port, speaks in host.tcp.items() if speaks == behaviour], behaviour)
        for host, behaviour in itertools.product(hosts, sorted(_PYTHON))
        if behaviour in host.tcp.values()
    ]
    wanted.append((_EVERYTHING, [_ONE_LISTENER], "silent"))
    stack.enter_context(
        ready(net.there(sys.executable, str(Path(__file__).with_name("servers.py")), json.dumps(wanted)))
    )
    for number, command in enumerate(
        [*_nginx(place, hosts), *_sshd(place, hosts), *_redis(place, hosts), *_dnsmasq(hosts)]
    ):
        stack.enter_context(_started(net.there(*command), place / f"server-{number}.log"))


def _ends(hosts: Iterable[Truth], *speak: str) -> list[tuple[str, int]]:
    return [(host.address, port) for host in hosts for port, what in host.tcp.items() if what in speak]


def _bracketed(address: str) -> str:
    return f"[{address}]" if ":" in address else address


def _nginx(place: Path, hosts: Iterable[Truth]) -> Iterator[list[str]]:
    key, certificate = place / "tls.key", place / "tls.crt"
    made = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    run(*made, "-subj", f"/CN={NAME}", "-days", "30", "-keyout", str(key), "-out", str(certificate))
    listens = [f"listen {_bracketed(address)}:{port};" for address, port in _ends(hosts, "http")]
    listens += [f"listen {_bracketed(address)}:{port} ssl;" for address, port in _ends(hosts, "https")]
    settings = place / "nginx.conf"
    settings.write_text(
        f"daemon off; pid {place}/nginx.pid; user root; worker_processes 1; error_log stderr;\n"
        "events { worker_connections 4096; }\n"
        f"http {{ access_log off; client_body_temp_path {place}; proxy_temp_path {place}; fastcgi_temp_path {place};\n"
        f" uwsgi_temp_path {place}; scgi_temp_path {place};\n"
        f" server {{ {' '.join(listens)}\n"
        f"  ssl_certificate {certificate}; ssl_certificate_key {key};\n"
        "  location / { return 200 'hello'; } } }\n"
    )
    yield ["/usr/sbin/nginx", "-p", str(place), "-c", str(settings), "-e", "stderr"]


def _sshd(place: Path, hosts: Iterable[Truth]) -> Iterator[list[str]]:
    Path("/run/sshd").mkdir(exist_ok=True)  # which systemd or the init script makes
    key = place / "host_key"
    run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(key))
    ends = [end for end in _ends(hosts, "ssh") if end[0] != _MANY] + [(_MANY, 22)]
    for number in range(0, len(ends), _SSH_ADDRESSES):
        settings = place / f"sshd-{number}.conf"
        listens = "".join(
            f"ListenAddress {_bracketed(address)}:{port}\n" for address, port in ends[number : number + _SSH_ADDRESSES]
        )
        settings.write_text(
            f"{listens}HostKey {key}\nPidFile none\nUsePAM no\nMaxStartups 1000\nPerSourceMaxStartups none\n"
        )
        yield ["/usr/sbin/sshd", "-D", "-e", "-f", str(settings)]


def redis_server(place: Path) -> Path:
    """The program, in this directory: Debian has it in redis-tools under another name of its own, and the package
    redis-server would start one by itself."""
    program = place / "redis-server"
    program.symlink_to("/usr/bin/redis-check-rdb")
    return program


def _redis(place: Path, hosts: Iterable[Truth]) -> Iterator[list[str]]:
    program = redis_server(place)
    ends = _ends(hosts, "redis")
    options = ["--port", "6379", "--save", "", "--dir", str(place), "--protected-mode", "no"]
    for number in range(0, len(ends), _SSH_ADDRESSES):
        yield [str(program), "--bind", *(address for address, _ in ends[number : number + _SSH_ADDRESSES]), *options]


def _dnsmasq(hosts: Iterable[Truth]) -> Iterator[list[str]]:
    listens = [f"--listen-address={address}" for address, _ in _ends(hosts, "domain")]
    options = ["--keep-in-foreground", "--conf-file=/dev/null", "--pid-file=", "--user=root", "--bind-interfaces"]
    yield [
        "dnsmasq",
        *options,
        "--no-resolv",
        "--no-hosts",
        "--log-facility=-",
        f"--address=/{NAME}/10.99.0.1",
        *listens,
    ]


def _rules() -> str:
    def addresses(kind: str) -> str:
        return "{ " + ", ".join(host.address for host in of_kind(kind)) + " }"

    translated = f"{{ {_EVERYTHING}, {_MANY} }}"
    return f"""
    table inet lab {{
      # What is not translated is not tracked either: a table of connections would be a limit of its own.
      chain tracked {{
        type filter hook prerouting priority raw;
        ip daddr != {translated} notrack
        meta nfproto ipv6 notrack
      }}
      chain answers {{
        type filter hook output priority raw;
        ip saddr != {translated} notrack
        meta nfproto ipv6 notrack
      }}
      chain translated {{
        type nat hook prerouting priority dstnat;
        ip daddr {_EVERYTHING} meta l4proto tcp dnat ip to {_EVERYTHING}:{_ONE_LISTENER}
        ip daddr {_MANY} tcp dport 2201-2240 dnat ip to {_MANY}:22
      }}
      chain limited {{
        type filter hook prerouting priority -350;
        ip daddr {SPARSE_PREFIX} ip daddr & 0.0.0.15 != 0.0.0.1 drop
        ip daddr {addresses("passes 5,000 packets a second")} limit rate over 5000/second burst 1000 packets drop
      }}
      chain hosts {{
        type filter hook input priority filter;
        ip daddr {_MANY} tcp dport 22 ct original proto-dst 22 reject with tcp reset
        ip daddr {addresses("behind a firewall that drops")} tcp dport != 22 drop
        ip daddr {addresses("behind a firewall that drops")} meta l4proto udp drop
        ip daddr {addresses("behind a firewall that rejects")} tcp dport != 80 reject with icmp type admin-prohibited
        ip daddr {addresses("behind a firewall that rejects")} meta l4proto udp reject with icmp type admin-prohibited
      }}
      chain slowly {{
        limit rate over 1/second burst 6 packets drop
      }}
      chain resets {{
        type filter hook output priority filter;
        meta nfproto ipv6 accept
        ip saddr {addresses("says once a second that a port is closed")} icmp type destination-unreachable jump slowly
        ip saddr != {addresses("limits its resets")} accept
        tcp flags & rst == rst limit rate over 1000/second burst 50 packets drop
      }}
    }}
    """


def _await_listeners(net: Network) -> None:
    expected = {
        (address.strip("[]"), port) for address, port in _ends((*HOSTS, *FAR_HOSTS), "http", "https", "redis", "domain")
    }
    until = time.monotonic() + PATIENCE
    while missing := expected - listening(net):
        if time.monotonic() > until:
            raise TimeoutError(f"nobody listens on {sorted(missing)[:5]} and {max(0, len(missing) - 5)} more")
        time.sleep(0.02)


def listening(net: Network) -> set[tuple[str, int]]:
    """The addresses and TCP ports at which somebody listens, where the servers are."""
    found = set()
    for line in run(*net.there("ss", "-Hltn")).splitlines():
        address, _, port = line.split()[3].rpartition(":")
        found.add((address.strip("[]").partition("%")[0], int(port)))
    return found


@contextmanager
def _started(command: list[str], log: Path) -> Iterator[None]:
    with (
        log.open("wb") as output,
        subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=output, stderr=output) as it,
    ):
        try:
            yield
        finally:
            it.terminate()
            it.wait(PATIENCE)


@contextmanager
def ready(command: list[str]) -> Iterator[None]:
    """A program that says ``ready`` once it is, and ends with its standard input."""
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as it:
        try:
            if it.stdout is None or it.stdout.readline() != b"ready\n":
                raise OSError(f"did not become ready: {' '.join(command)[:200]}")
            yield
        finally:
            it.terminate()
            it.communicate(timeout=PATIENCE)


def batch(namespace: str, *lines: str) -> None:
    """Lines of ip(8) in a namespace, in one process."""
    run("ip", "-n", namespace, "-batch", "-", told="\n".join(lines))


def run(*command: str, told: str = "") -> str:
    done = subprocess.run(command, input=told, capture_output=True, text=True, timeout=PATIENCE, check=False)
    if done.returncode:
        raise OSError(f"{' '.join(command)[:200]}: {done.stderr}")
    return done.stdout
