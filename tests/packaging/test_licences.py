"""What docs/licences.md says is bundled is what is bundled, and each licence goes with it."""

from __future__ import annotations

import re
import sys
from importlib.metadata import distribution
from pathlib import Path

import pytest

import licences
from licences import COMPONENTS, Component
from tests.binary import Built

pytestmark = pytest.mark.timeout(300)  # the first one may build

DISTRIBUTED = [component for component in COMPONENTS if component.distribution and component.modules]
BY_TEXT = {
    "GPL-3.0-or-later WITH GCC": "GCC RUNTIME LIBRARY EXCEPTION",
    "LGPL-2.1": "GNU LESSER GENERAL PUBLIC LICENSE\\s+Version 2.1",
    "GPL-2.0": "GNU GENERAL PUBLIC LICENSE\\s+Version 2",
    "GPL-3.0": "GNU GENERAL PUBLIC LICENSE\\s+Version 3",
    "MIT": "(?s)Permission is hereby granted, free\\s+of charge.*without restriction",
    "BSD-3-Clause": "(?s)Redistribution and use in source and binary forms.*(endorse|acknowledg)",
    "PSF-2.0": "PYTHON SOFTWARE FOUNDATION LICENSE VERSION 2",
    "Zlib": "(?s)misrepresented as being the original software",
    "blessing": "public.domain",
}
"""What stands in a text of a licence, by the begin of its SPDX expression."""


@pytest.fixture(scope="module")
def libraries(program: Built) -> list[str]:
    """The shared libraries in the bundle."""
    own = program.tree / "lib"
    return sorted(path.name for place in (own, own / "numpy.libs") for path in place.glob("*.so*"))


def test_the_page_is_what_the_table_says() -> None:
    assert licences.PAGE.read_text() == licences.page(licences.pinned()), "python packaging/licences.py writes it"


def test_every_module_in_the_bundle_has_a_component(modules: set[str]) -> None:
    known = {module for component in COMPONENTS for module in component.modules}
    of_python = {*sys.stdlib_module_names, *(name for name in modules if name.startswith("_sysconfigdata"))}
    tops = {name.partition(".")[0] for name in modules}
    assert tops - of_python - {"__main__"} == known


def test_every_library_in_the_bundle_has_a_component(libraries: list[str]) -> None:
    owners = {
        one.name: [name for name in libraries if name.startswith(one.library)] for one in COMPONENTS if one.library
    }
    assert sorted(name for names in owners.values() for name in names) == libraries
    assert {name for name, found in owners.items() if not found} <= {"Expat"}


def carried(program: Built) -> dict[str, str]:
    """The texts in the bundle by what their files are called."""
    place = program.tree / "lib/share/agent/licences"
    return {path.stem: path.read_text(errors="replace") for path in place.glob("*.txt")}


def test_the_text_of_each_licence_is_in_the_bundle(program: Built, libraries: list[str]) -> None:
    texts = carried(program)
    bundled = [one for one in COMPONENTS if not one.library or any(name.startswith(one.library) for name in libraries)]
    assert set(texts) == {one.name for one in bundled}
    for one in bundled:
        sign = next(sign for begin, sign in BY_TEXT.items() if one.licence.startswith(begin))
        assert re.search(sign, texts[one.name]), one.name


def test_the_list_in_the_bundle_has_every_version(program: Built) -> None:
    page = (program.tree / "lib/share/agent/licences/licences.md").read_text()
    versions = {row[0]: row[1] for row in re.findall(r"^\| (\S.*?) \| (\S.*?) \|", page, re.MULTILINE)[1:]}
    assert set(versions) == {component.name for component in COMPONENTS}
    assert versions["agent"] == program.version
    assert versions["Python"] == ".".join(map(str, sys.version_info[:3]))
    for one in COMPONENTS:
        if not one.library or one.name == "Python":
            assert re.fullmatch(r"[0-9]+(\.[0-9]+)+", versions[one.name])
        elif one.distribution:
            assert versions[one.name] == f"{one.distribution}'s"
        else:
            assert re.match(r"([0-9]:)?[0-9]+\.[0-9]|not in this build", versions[one.name])


@pytest.mark.parametrize("component", DISTRIBUTED, ids=lambda one: one.name)
def test_the_version_on_the_page_is_the_one_that_is_installed(component: Component) -> None:
    assert distribution(component.distribution).version == licences.pinned()[component.name]


@pytest.mark.parametrize("component", DISTRIBUTED, ids=lambda one: one.name)
def test_a_library_is_under_the_licence_that_it_declares(component: Component) -> None:
    """As far as it declares one that can be compared; the others are read in their texts."""
    metadata = distribution(component.distribution).metadata.json
    declared = str(metadata.get("license_expression") or metadata.get("license") or "")
    if re.fullmatch(r"[A-Za-z0-9.-]+( AND [A-Za-z0-9.-]+)*", declared) and not declared.endswith(".txt"):
        assert declared == component.licence
    else:
        classifiers = " ".join(metadata["classifier"])
        word = {"MIT": "MIT License", "GPL": "GNU General Public License"}[re.split("[-]", component.licence)[0]]
        assert word in classifiers


def test_the_project_is_under_a_licence_that_goes_with_both() -> None:
    by_name = {component.name: component.licence for component in COMPONENTS}
    assert (by_name["scapy"], by_name["python-nmap"]) == ("GPL-2.0-only", "GPL-3.0-or-later")
    project = (Path(licences.ROOT) / "pyproject.toml").read_text()
    assert by_name["agent"] == "GPL-2.0-or-later"
    assert 'license = "GPL-2.0-or-later"' in project


def test_the_sections_about_a_library_are_found_in_the_texts_of_the_wheel_that_brings_it() -> None:
    texts = {"LICENSE": "Ours.\n\nName: a\nFiles: x.libs/liba*.so\nA.\n\nName: b\nFiles: x.libs/libb*.so\nB.\n"}
    assert licences._about(texts, "liba-1f.so.5") == "Name: a\nFiles: x.libs/liba*.so\nA.\n\n"
    assert licences._about(texts, "libc.so") == ""


def test_a_library_that_no_package_of_this_machine_has_stops_the_build(tmp_path: Path) -> None:
    (tmp_path / "libpcap.so.0.8").touch()
    with pytest.raises(SystemExit, match=r"dpkg-query --search .*libpcap"):
        licences.lay(tmp_path, {"libpcap.so.0.8": tmp_path / "libpcap.so.0.8", "libpython3": Path("/usr/bin/env")}, "1")
