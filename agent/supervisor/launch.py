"""What a child is started with: its arguments, its environment, its capabilities. Pure, from the declaration alone.

A child's environment starts from an allow-list and never from the agent's own, so that the agent's ``NOTIFY_SOCKET``,
``WATCHDOG_*``, ``LISTEN_*`` and ``CREDENTIALS_DIRECTORY``, and whatever secrets were exported into it, stay where they
are.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from types import MappingProxyType

import msgspec

from agent.declaration.model import AgentSettings, AnyService, Command
from agent.linux.capability_sets import NET_RAW
from agent.linux.spawn import base_environment, own_program
from agent.linux.sweep import MARK
from agent.paths import Paths

_OF_WORKERS: dict[str, tuple[str, ...]] = {"capture": (NET_RAW,), "scan": (NET_RAW,), "watch": ()}


class Launch(msgspec.Struct, frozen=True):
    """``own_program`` is true for workers of our own: they keep the library path of a frozen build.

    ``capabilities`` are as in ``SpawnRequest``.
    """

    argv: tuple[str, ...]
    environment: dict[str, str]
    own_program: bool
    capabilities: tuple[str, ...] | None


def launch(
    service: AnyService,
    settings: AgentSettings,
    paths: Paths,
    mark: str,
    notify: str,
    environ: Mapping[str, str],
    files: Mapping[str, int] = MappingProxyType({}),
) -> Launch:
    """How to start ``service``.

    ``mark`` makes its descendants recognisable, ``notify`` is the address it may report to, ``environ`` the agent's
    environment. ``files`` are descriptors that it is given, by the variables that name them.
    """
    own = not isinstance(service, Command)
    argv = service.command if isinstance(service, Command) else (*own_program(), "worker", service.kind)
    capabilities = service.capabilities if isinstance(service, Command) else _OF_WORKERS[service.kind]
    environment = base_environment(environ)
    environment.update(service.environment)
    environment.update(contract(service, settings, paths, argv))
    environment["NOTIFY_SOCKET"] = notify
    environment[MARK] = mark
    environment.update({name: str(fd) for name, fd in files.items()})
    return Launch(tuple(argv), environment, own, capabilities)


def contract(service: AnyService, settings: AgentSettings, paths: Paths, argv: tuple[str, ...]) -> dict[str, str]:
    """The names that every child may rely on."""
    names = {
        "SERVICE_NAME": service.name,
        "SERVICE_CONFIG": str(paths.config(service.name)),
        "SERVICE_SERVER": settings.server,
        "SERVICE_FLAVOR": service.kind,
        "SERVICE_IMAGE": argv[0],
        "SERVICE_ARGS": shlex.join(argv[1:]),
        "SERVICE_DATA": str(paths.data(service.name)),
    }
    if service.heartbeat is not None:
        names["SERVICE_HEARTBEAT_FILE"] = str(paths.heartbeat(service.name))
        names["WATCHDOG_USEC"] = str(int(service.heartbeat.timeout * 1_000_000))
    own_copies = service.user is not None or service.group is not None
    for secret in service.secrets:
        file = paths.secret_copies(service.name) / secret if own_copies else paths.secret(secret)
        names[f"{secret.upper()}_FILE"] = str(file)
    return names
