"""The tests of ``inside``, one by one, as the machine of our own has run them."""

from __future__ import annotations

import ast
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest

from tests.binary import built
from tests.machine import machine
from tests.system.root import debian

INSIDE = Path(__file__).with_name("inside")

Results = dict[str, list[str]]


def named() -> list[str]:
    """Every test of ``inside`` as ``file.function``, without importing it."""
    found = []
    for file in sorted(INSIDE.glob("test_*.py")):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith("test_"):
                found.append(f"{file.stem}.{node.name}")
    return found


@pytest.fixture(scope="session")
def results(tmp_path_factory: pytest.TempPathFactory) -> Results:
    """Boot once. For each test inside: what went wrong with its cases, one text each, empty for a case that passed."""
    # Whatever the tests inside would have to make first, and an emulated processor takes ten times as long for.
    debian()
    built()
    out = tmp_path_factory.mktemp("machine") / "out"
    console = machine.run_tests(INSIDE, out)
    try:
        cases = ElementTree.parse(out / "results.xml").iter("testcase")
    except (OSError, ElementTree.ParseError):
        pytest.fail(f"the machine gave no results; its console said:\n{console}", pytrace=False)
    verdicts: Results = {}
    for case in cases:
        trouble = "\n".join(part.text or part.tag for part in case if part.tag != "system-out")
        file, function = case.get("classname", "").rsplit(".", 1)[-1], case.get("name", "").partition("[")[0]
        verdicts.setdefault(f"{file}.{function}", []).append(trouble)
    return verdicts


@pytest.mark.timeout(900)
@pytest.mark.parametrize("name", named())
def test_passes_inside_the_machine(name: str, results: Results) -> None:
    assert name in results, "the machine did not run it"
    trouble = [text for text in results[name] if text]
    if trouble:
        pytest.fail("\n".join(trouble), pytrace=False)
