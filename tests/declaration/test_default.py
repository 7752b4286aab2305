"""The declarations that come with the program."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest

from agent.declaration.default import DEMO, TEMPLATE
from agent.declaration.model import Capture, Command, Declaration, Scan
from agent.declaration.targets import span

Read = Callable[..., Declaration]


def test_the_demonstration_has_one_service_of_each_kind(read: Read) -> None:
    kinds = [service.kind for service in read(DEMO).services.values()]
    assert sorted(kinds) == ["capture", "command", "scan"]


def test_the_demonstration_stays_on_the_loopback_interface_and_is_small(read: Read) -> None:
    for service in read(DEMO).services.values():
        match service:
            case Capture():
                assert service.interfaces == ("lo",)
                assert service.budget <= 64 * 1024**2
            case Scan():
                assert [span(target).low >> 24 for target in service.targets] == [127]
                assert service.timer is not None
            case Command():
                assert "127.0.0.1" in service.command


def test_the_demonstration_scans_the_port_it_serves(read: Read) -> None:
    services = read(DEMO, {"DEMO_PORT": "9123"}).services.values()
    [scan] = [service for service in services if isinstance(service, Scan)]
    [command] = [service for service in services if isinstance(service, Command)]
    assert DEMO.count("${DEMO_PORT:-8642}") == 2
    assert scan.ports == "1-1024,9123"
    assert command.command[-1] == "9123"


def test_the_template_is_valid_as_it_stands_and_declares_nothing_yet(read: Read) -> None:
    assert read(TEMPLATE).services == {}


def test_every_example_of_the_template_is_valid_once_its_marks_are_gone(read: Read) -> None:
    services = read(re.sub(r"^#(?! \S)", "", TEMPLATE, flags=re.MULTILINE)).services
    assert [service.kind for service in services.values()] == ["capture", "scan", "command", "watch"]


@pytest.mark.parametrize("text", [DEMO, TEMPLATE], ids=["demo", "template"])
def test_they_are_read_by_people(text: str) -> None:
    assert max(map(len, text.splitlines())) <= 120
    assert text.endswith("\n") and text.isascii()
