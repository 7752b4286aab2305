"""The house of docs/design.md stands as drawn: who imports whom, what each process loads, where each test lives."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
FILES = sorted((ROOT / "agent").rglob("*.py"))

FLOORS = {
    "errors": 0,
    "paths": 0,
    "linux": 1,
    "declaration": 2,
    "telemetry": 3,
    "workers": 4,
    "supervisor": 4,
    "installation": 4,
    "control": 5,
    "cli": 6,
    "__main__": 7,
}
"""A room imports from its own floor or below. Those that share a floor have walls between them."""

HEAVY = {"scapy", "nmap", "numpy", "rich", "click", "ssl"}
"""What the agent's own process never loads."""


def module_name(file: Path) -> str:
    parts = file.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_name(file): file for file in FILES}


def imported(file: Path) -> Iterator[tuple[int, str]]:
    """Every module that ``file`` imports anywhere in it, with the line. A name that is a module counts as one."""
    for node in ast.walk(ast.parse(file.read_text(), str(file))):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{file}:{node.lineno}: a relative import hides which floor it reaches for"
            assert node.module
            for alias in node.names:
                submodule = f"{node.module}.{alias.name}"
                yield node.lineno, submodule if submodule in MODULES else node.module


def room(module: str) -> str | None:
    """``linux`` for ``agent.linux.spawn``; ``None`` for the package itself, which holds only the version."""
    parts = module.split(".")
    return parts[1] if len(parts) > 1 else None


def loaded_by(statement: str) -> set[str]:
    """All modules in a new interpreter that ran ``statement``. ``None`` stands for one that is kept out."""
    names = "(name for name, module in sys.modules.items() if module)"
    program = f"import sys\n{statement}\nprint(*{names}, sep='\\n', file=sys.__stdout__)"
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=30)
    assert done.returncode == 0, done.stderr
    return set(done.stdout.split())


def test_every_room_of_the_house_is_there_and_has_a_floor() -> None:
    rooms = {room(module) for module in MODULES} - {None}
    assert rooms == set(FLOORS)


@pytest.mark.parametrize("module", MODULES)
def test_a_module_imports_only_from_its_own_floor_or_below(module: str) -> None:
    here = room(module)
    wrong = []
    for line, name in imported(MODULES[module]):
        there = room(name) if name.split(".")[0] == "agent" else None
        if there is None or there == here:
            continue
        if here is None or FLOORS[there] >= FLOORS[here]:
            wrong.append(f"{MODULES[module].relative_to(ROOT)}:{line}: {here or 'agent'} imports {name}")
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("module", MODULES)
def test_a_module_opens_with_what_it_is_for(module: str) -> None:
    if MODULES[module].read_text().strip():
        assert ast.get_docstring(ast.parse(MODULES[module].read_text())), f"{module} has no docstring"


@pytest.mark.parametrize("module", MODULES)
def test_what_a_module_offers_to_others_is_described(module: str) -> None:
    """Functions and classes without an underscore, unless they are so short that their text says as much."""
    tree = ast.parse(MODULES[module].read_text())
    bare = [
        f"{MODULES[module].relative_to(ROOT)}:{node.lineno}: {node.name}"
        for node in tree.body
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)
        and not node.name.startswith("_")
        and (node.end_lineno or node.lineno) - node.lineno > 5
        and not ast.get_docstring(node)
    ]
    assert not bare, "\n".join(bare)


def test_the_agents_own_process_stays_light() -> None:
    as_started = "from agent.control.lean import leave_out_tls\nleave_out_tls()\nimport agent.control.daemon"
    loaded = {name.split(".")[0] for name in loaded_by(as_started)}
    assert "asyncio" in loaded, "the daemon is not what was loaded"
    assert not HEAVY & loaded


def test_status_loads_neither_scapy_nor_numpy_nor_nmap(tmp_path: Path) -> None:
    ask = (
        "import agent.cli.main\n"
        f"sys.argv = ['agentctl', '--prefix', {str(tmp_path)!r}, 'status']\n"
        "try:\n    code = agent.cli.main.main()\n"
        "except SystemExit as ending:\n    code = ending.code\n"
        "assert code == 2, code"
    )
    loaded = {name.split(".")[0] for name in loaded_by(ask)}
    assert "click" in loaded, "agentctl is not what was loaded"
    assert not {"scapy", "numpy", "nmap", "asyncio"} & loaded


@pytest.mark.parametrize(
    ("worker", "its_own", "foreign"),
    [("capture", "scapy", "nmap"), ("inventory", "scapy", "nmap"), ("scan", "nmap", "scapy")],
    ids=["capture", "inventory", "scan"],
)
def test_no_process_holds_both_scapy_and_python_nmap(worker: str, its_own: str, foreign: str) -> None:
    """Their licences (GPL-2.0-only and GPL-3.0-or-later) do not allow one work to be made of both."""
    mine = [module for module in MODULES if module.startswith(f"agent.workers.{worker}")]
    wanted = {name.split(".")[0] for module in mine for _, name in imported(MODULES[module])}
    assert its_own in wanted
    assert foreign not in wanted
    loaded = {name.split(".")[0] for name in loaded_by("\n".join(f"import {module}" for module in mine))}
    assert foreign not in loaded


def test_to_judge_drift_loads_no_scapy_numpy_or_nmap() -> None:
    mine = [module for module in MODULES if module.startswith("agent.workers.watch")]
    loaded = {name.split(".")[0] for name in loaded_by("\n".join(f"import {module}" for module in mine))}
    assert "psutil" in loaded
    assert not {"scapy", "numpy", "nmap", "rich", "click"} & loaded


def test_only_the_workers_know_scapy_and_nmap() -> None:
    wrong = [
        f"{module}:{line}: {name}"
        for module, file in MODULES.items()
        if room(module) != "workers"
        for line, name in imported(file)
        if name.split(".")[0] in {"scapy", "nmap"}
    ]
    assert not wrong, "\n".join(wrong)


def test_numpy_starts_no_threads() -> None:
    """As OpenBLAS does, which it brings, unless it is told otherwise before."""
    threads = "import agent.workers.index.model, os; assert len(os.listdir('/proc/self/task')) == 1"
    assert "numpy" in loaded_by(threads)


_EXEC = {f"exec{form}" for form in ("l", "le", "lp", "lpe", "v", "ve", "vp", "vpe")}
_SPAWN = {f"spawn{form}" for form in ("l", "le", "lp", "lpe", "v", "ve", "vp", "vpe")}
STARTERS = {
    *("subprocess", "_posixsubprocess", "multiprocessing", "pty", "posix", "webbrowser", "ProcessPoolExecutor"),
    *("fork", "vfork", "forkpty", "fork_exec", "clone", "clone3", "posix_spawn", "posix_spawnp", "syscall"),
    *("os.system", "popen", "Popen", "startfile", "fexecve", "execveat", *_EXEC, *_SPAWN),
    *("subprocess_exec", "subprocess_shell", "create_subprocess_exec", "create_subprocess_shell"),
    *("echo_via_pager", "find_library", "PortScannerAsync", "PortScannerYield"),
}
"""Modules, functions of Python and of the C library, by which a process comes to be or becomes another."""

PLACES = {
    "agent.linux.spawn": {"subprocess", "Popen"},
    "agent.linux.clone": {"syscall", "execve"},
    "agent.linux.priority": {"syscall"},  # ioprio_set
    "agent.linux.become": {"execve"},
    "agent.workers.capture.binding": {"find_library"},  # replaces it
    "agent.workers.scan.library": {"multiprocessing"},  # keeps it out
    "agent.cli.proofs": {"multiprocessing"},  # proves that a bundle has none
}
"""Where what of it is used."""


def mentioned(file: Path) -> Iterator[str]:
    """Every name in ``file``: of variables, attributes, imports, and every text: ``getattr`` could be given it."""
    for node in ast.walk(ast.parse(file.read_text(), str(file))):
        match node:
            case ast.Attribute(value=ast.Name(id="os" | "libc" | "_libc"), attr="system"):
                yield "os.system"  # by itself that is an everyday word
            case ast.Attribute(attr=name) | ast.Name(id=name) | ast.Constant(value=str(name)):
                yield name
            case ast.Import(names=names) | ast.ImportFrom(names=names):
                if isinstance(node, ast.ImportFrom):
                    yield from (node.module or "").split(".")[:1]
                for alias in names:
                    yield from {alias.name, alias.name.split(".")[0], alias.name.split(".")[-1]}
            case _:
                pass


def test_nothing_starts_or_replaces_a_process_but_what_is_there_for_it() -> None:
    """The linter bans these names too, as far as it knows of what object they are."""
    found = {module: STARTERS.intersection(mentioned(file)) for module, file in MODULES.items()}
    assert {module: names for module, names in found.items() if names} == PLACES


def test_every_test_file_mirrors_a_module() -> None:
    """``tests/x/test_y.py`` tests ``agent/x/y.py`` or the package ``agent/x/y``; tests of the whole stand apart.

    So does ``test_y_more.py``, where one file would be too long.
    """
    apart = {"acceptance", "bench", "machine", "packaging", "system"}
    strays = []
    for file in sorted((ROOT / "tests").rglob("test_*.py")):
        place = file.relative_to(ROOT / "tests")
        if place.parts[0] in apart or place in {Path("test_docs.py"), Path("test_floors.py")}:
            continue
        subject = ROOT / "agent" / place.parent
        words = file.stem.removeprefix("test_").split("_")
        names = ["_".join(words[:count]) for count in range(len(words), 0, -1)]
        if not any((subject / known).exists() for name in names for known in (f"{name}.py", f"__{name}__.py", name)):
            strays.append(str(place))
    assert not strays, f"no module of that name for {', '.join(strays)}"


ACCEPTANCE = sorted((ROOT / "tests" / "acceptance").glob("test_*.py"))


@pytest.mark.parametrize("file", ACCEPTANCE, ids=[file.stem for file in ACCEPTANCE])
def test_an_agent_of_the_acceptance_tests_is_given_the_subject(file: Path) -> None:
    """Whoever makes one apart from the fixture for it hands over ``program``; else only the source would be tested."""
    tree = ast.parse(file.read_text(), str(file))
    kinds = {"Agent"}
    for node in ast.walk(tree):
        if isinstance(node, ast.ClassDef) and kinds.intersection(map(name_of, node.bases)):
            kinds.add(node.name)
    wrong = [
        f"{file.relative_to(ROOT)}:{node.lineno}: {ast.unparse(node)}"
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and name_of(node.func) in kinds
        if "program" not in map(name_of, [*node.args, *(keyword.value for keyword in node.keywords)])
    ]
    assert not wrong, "\n".join(wrong)


def name_of(node: ast.expr) -> str | None:
    """``Agent`` for ``Agent`` and for ``harness.Agent``."""
    match node:
        case ast.Name(id=name) | ast.Attribute(attr=name):
            return name
        case _:
            return None
