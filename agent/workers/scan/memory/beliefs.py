"""What is believed of hosts and their ports, from the tables ``hosts``, ``ports`` and ``services`` and back to them."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable
from typing import Any, Final

import msgspec

from agent.errors import StorageFailure
from agent.workers.scan.found import Certificate
from agent.workers.scan.memory.coverage import port_set, read_ports
from agent.workers.scan.memory.picture import PortSet
from agent.workers.scan.memory.state import HostState, Key, PortState, Service
from agent.workers.scan.memory.ways import Ways

SERVICE: Final = "SELECT name, product, version, extrainfo, tunnel, cpe, method, certificate FROM services"

_HOST: Final = (
    "SELECT state, source, mac, names, os, first_seen, last_seen, last_looked, last_changed, misses, history, flapping,"
    " dark, everything, discovery, answers FROM hosts WHERE id = ?"
)
_PORTS: Final = (
    "SELECT proto, port, service, state, reason, source, first_seen, last_seen, last_looked, last_changed, pending,"
    " misses, history, service_history, flapping, lately FROM ports WHERE host = ?"
)


class Beliefs:
    """Loads and saves hosts; remembers which number each service has."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self._services: dict[int | None, Service] = {None: Service()}
        self._numbers: dict[Service, int | None] = {Service(): None}
        self._sets: dict[int, PortSet] = {0: ()}
        self._numbers_of_sets: dict[PortSet, int] = {(): 0}

    def load(self, host: int) -> HostState:
        """What is believed of a host. Raises ``StorageFailure`` for what no host can be."""
        ports: dict[Key, PortState] = {}
        for row in self._connection.execute(_PORTS, (host,)).fetchall():
            proto, port, service, *values, lately = row
            ports[proto, port] = _port(values, self._service(service), self._service(lately))
        *row, answers = self._connection.execute(_HOST, (host,)).fetchone()
        return _host(row, self._set(answers), ports)

    def save(self, host: int, before: HostState, after: HostState) -> None:
        """Keep what is believed now, where it is not what was ``before``."""
        execute = self._connection.execute
        if _of_host(before) != (values := _of_host(after)) or before.ways != after.ways:
            execute(
                "UPDATE hosts SET state = ?, source = ?, mac = ?, names = ?, os = ?, first_seen = ?, last_seen = ?,"
                " last_looked = ?, last_changed = ?, misses = ?, history = ?, flapping = ?, dark = ?, everything = ?,"
                " discovery = ?, answers = ? WHERE id = ?",
                (*values, after.ways.discovery, self._number_of_set(after.ways.ports), host),
            )
        for key in before.ports.keys() - after.ports.keys():
            execute("DELETE FROM ports WHERE host = ? AND proto = ? AND port = ?", (host, *key))
        self._connection.executemany(
            "INSERT OR REPLACE INTO ports (host, proto, port, state, reason, service, source, first_seen, last_seen,"
            " last_looked, last_changed, pending, misses, history, service_history, flapping, lately)"
            " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            [
                (
                    host,
                    *key,
                    port.state,
                    port.reason,
                    self._number(port.service),
                    port.source,
                    port.first_seen,
                    port.last_seen,
                    port.last_looked,
                    port.last_changed,
                    port.pending,
                    port.misses,
                    port.history,
                    port.service_history,
                    port.flapping,
                    self._number(port.lately),
                )
                for key, port in after.ports.items()
                if before.ports.get(key) != port
            ],
        )

    def _set(self, number: int) -> PortSet:
        if number not in self._sets:
            row = self._connection.execute("SELECT ports FROM port_sets WHERE id = ?", (number,)).fetchone()
            self._sets[number] = read_ports(row[0]) if row else ()
        return self._sets[number]

    def _number_of_set(self, ports: PortSet) -> int:
        if ports not in self._numbers_of_sets:
            self._numbers_of_sets[ports] = port_set(self._connection, ports)
        return self._numbers_of_sets[ports]

    def _service(self, number: int | None) -> Service:
        if number not in self._services:
            row = self._connection.execute(f"{SERVICE} WHERE id = ?", (number,)).fetchone()
            self._services[number] = read_service(row) if row else Service()
        return self._services[number]

    def _number(self, service: Service) -> int | None:
        """The number under which a service is kept, the same for equal ones."""
        if service not in self._numbers:
            certificate = msgspec.json.encode(service.certificate).decode() if service.certificate else ""
            cpe = msgspec.json.encode(service.cpe).decode()
            values = (
                service.name,
                service.product,
                service.version,
                service.extrainfo,
                service.tunnel,
                cpe,
                service.method,
                certificate,
            )
            self._connection.execute(
                "INSERT OR IGNORE INTO services (name, product, version, extrainfo, tunnel, cpe, method, certificate)"
                " VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                values,
            )
            row = self._connection.execute(
                "SELECT id FROM services WHERE name = ? AND product = ? AND version = ? AND extrainfo = ?"
                " AND tunnel = ? AND cpe = ? AND method = ? AND certificate = ?",
                values,
            ).fetchone()
            self._numbers[service] = row[0]
        return self._numbers[service]


def read_service(row: Iterable[Any]) -> Service:
    """A row of ``SERVICE``. Raises ``StorageFailure``."""
    name, product, version, extrainfo, tunnel, cpe, method, certificate = row
    return Service(
        name,
        product,
        version,
        extrainfo,
        tunnel,
        read_json(cpe, tuple[str, ...]),
        method,
        read_json(certificate, Certificate) if certificate else None,
    )


def read_json(written: str, kind: Any) -> Any:
    """JSON out of a database. Raises ``StorageFailure`` for what is not of this ``kind``."""
    try:
        return msgspec.json.decode(written, type=kind)
    except (msgspec.MsgspecError, TypeError, RecursionError) as error:
        raise StorageFailure(f"the database holds {str(written)[:40]!r}, which is not what belongs there") from error


def _port(row: list[Any], service: Service, lately: Service) -> PortState:
    state, reason, source, first, last, looked, changed, *rest = row
    pending, misses, history, services, flapping = rest
    return PortState(
        *(state, reason, source, first, last, looked, changed, service),
        *(pending, misses, history, services, flapping, lately),
    )


def _host(row: list[Any], answers: PortSet, ports: dict[Key, PortState]) -> HostState:
    state, source, mac, names, os, *rest = row
    first, last, looked, changed, misses, history, flapping, dark, everything, discovery = rest
    return HostState(
        state,
        source,
        mac,
        read_json(names, tuple[str, ...]),
        read_json(os, tuple[str, ...]),
        first,
        last,
        looked,
        changed,
        misses,
        history,
        flapping,
        dark,
        everything,
        Ways(discovery, answers),
        ports,
    )


def _of_host(state: HostState) -> tuple[object, ...]:
    return (
        state.state,
        state.source,
        state.mac,
        msgspec.json.encode(state.names).decode(),
        msgspec.json.encode(state.os).decode(),
        state.first_seen,
        state.last_seen,
        state.last_looked,
        state.last_changed,
        state.misses,
        state.history,
        state.flapping,
        state.dark,
        state.everything,
    )
