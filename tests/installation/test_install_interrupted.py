"""SIGKILL at every step of installing, upgrading and taking back: the next run heals it, whichever that is.

A step here is anything that the kernel is asked to change, so these kills are finer than the steps of a plan: between
a file's preparation and its rename, between mkdir and chmod.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path

import pytest

from agent.installation.install import install, lay, uninstall
from agent.installation.record import read
from tests.installation.conftest import Make
from tests.installation.image import Thing, killed_at, mounted, snapshot, system

PARTS = 4
"""Each test below runs in that many parts: every one of hundreds of kills needs a system of its own."""

in_parts = pytest.mark.parametrize("part", range(PARTS))


@pytest.fixture
def memory(tmp_path: Path) -> Iterator[Path]:
    """A place where nothing waits for a disk."""
    with mounted(tmp_path / "memory", "size=100m"):
        yield tmp_path / "memory"


def interrupted(
    memory: Path, part: int, prepare: Callable[[Path], object], work: Callable[[Path], object]
) -> Iterator[Path]:
    """Systems on which ``work`` was killed, each at another change, until it came to its end."""
    for number in count(part, PARTS):
        image = system(memory / f"interrupted-{number}")
        prepare(image)
        if not killed_at(number, lambda image=image: work(image)):  # type: ignore[misc]  # mypy infers no default of a lambda
            assert number > 40, "there are more changes than that"
            return
        yield image
        shutil.rmtree(image)


def scratches(things: dict[str, Thing]) -> list[str]:
    return [path for path in things if path.endswith(".agentctl")]


@in_parts
def test_the_next_installation_heals_an_interrupted_one(made: Make, memory: Path, part: int) -> None:
    tree, prefix = made(), "/opt/a/b"
    whole = system(memory / "whole")
    install(tree, prefix, whole)
    expected = snapshot(whole)
    for image in interrupted(memory, part, lambda _: None, lambda image: install(tree, prefix, image)):
        install(tree, prefix, image)
        assert snapshot(image) == expected


@in_parts
def test_an_interrupted_installation_can_be_taken_back(made: Make, memory: Path, part: int) -> None:
    tree = made()
    before = snapshot(system(memory / "before"))
    for image in interrupted(memory, part, lambda _: None, lambda image: install(tree, "/opt/agent", image)):
        uninstall("/opt/agent", image, purge=True)
        after = snapshot(image)
        assert not scratches(after)
        assert after == before


@in_parts
def test_an_interrupted_upgrade_never_leaves_half_a_version_current_and_is_healed(
    made: Make, memory: Path, part: int
) -> None:
    old, new = made("0.1.0"), made("0.1.1")
    whole = system(memory / "whole")
    install(old, "/srv", whole)
    install(new, "/srv", whole)
    expected = snapshot(whole)
    for image in interrupted(
        memory, part, lambda image: install(old, "/srv", image), lambda image: install(new, "/srv", image)
    ):
        record = read(image, "/srv")
        assert record, "there is a record at any time"
        version = (image / "srv/lib/agent/current").readlink().name
        laid = {path: thing for path, thing in snapshot(image).items() if path.startswith(f"srv/lib/agent/{version}/")}
        assert laid == {path: thing for path, thing in expected.items() if path.startswith(f"srv/lib/agent/{version}/")}
        install(new, "/srv", image)
        assert snapshot(image) == expected


@in_parts
def test_an_interrupted_uninstall_goes_on(made: Make, memory: Path, part: int) -> None:
    tree = made()
    before = snapshot(system(memory / "before"))
    for image in interrupted(
        memory,
        part,
        lambda image: install(tree, "/opt/agent", image),
        lambda image: uninstall("/opt/agent", image, purge=True),
    ):
        uninstall("/opt/agent", image, purge=True)
        assert snapshot(image) == before


@in_parts
def test_an_interrupted_uninstall_can_be_thought_better_of(made: Make, memory: Path, part: int) -> None:
    tree = made()
    whole = system(memory / "whole")
    install(tree, "/srv", whole)
    expected = snapshot(whole)
    for image in interrupted(
        memory, part, lambda image: install(tree, "/srv", image), lambda image: uninstall("/srv", image)
    ):
        install(tree, "/srv", image)
        assert snapshot(image) == expected


def test_a_tree_whose_laying_was_interrupted_is_laid_when_it_is_asked_for_again(made: Make, memory: Path) -> None:
    tree = made()
    for number in count():
        prefix = memory / f"prefix-{number}"
        if not killed_at(number, lambda prefix=prefix: lay(tree, str(prefix))):  # type: ignore[misc]  # mypy infers no default of a lambda
            break
        lay(tree, str(prefix))
        lay(tree, str(memory / "whole"))
        after, whole = snapshot(prefix), snapshot(memory / "whole")
        del after["lib/agent/install.json"], whole["lib/agent/install.json"]
        assert after == whole
    assert number > 40
