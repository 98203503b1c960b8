"""The house keeps its floors: a module imports from lower ones and from its own room, never upwards or in a circle."""

import ast
import subprocess
import sys
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[1] / "sa2va_lab"
FLOORS = [
    {"errors"},
    {"shown"},
    {"files", "language"},
    {"prediction", "paths"},
    {"sa2va", "datasets", "training", "reports"},
    {"conversation"},
    {"tracking"},
    {"segmenter"},
    {"loading"},
    {"runs"},
    {"evaluation"},
    {"views"},
    {"commands"},
    {"cli", "__init__"},
]
FLOOR = {room: number for number, rooms in enumerate(FLOORS) for room in rooms}
MODULES = sorted(PACKAGE.rglob("*.py"))


def name_of(path: Path) -> str:
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def room_of(module: str) -> str:
    return module.split(".")[1] if "." in module else "__init__"


def imports_of(path: Path, *, at_top: bool) -> set[str]:
    """Modules of the package that `path` imports; `at_top` leaves out imports inside functions and for type checks."""
    known = {name_of(module) for module in MODULES}
    tree = ast.parse(path.read_text(encoding="utf-8"))
    nodes = tree.body if at_top else ast.walk(tree)
    found = set()
    for node in nodes:
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("sa2va_lab"):
            assert node.level == 0
            names = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= {name if name in known else node.module for name in names}
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names if alias.name.startswith("sa2va_lab")}
    return found


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_imports_run_downwards(path):
    room = room_of(name_of(path))
    for imported in imports_of(path, at_top=False):
        other = room_of(imported)
        assert other == room or FLOOR[other] < FLOOR[room] or room == "__init__", f"{name_of(path)} -> {imported}"


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_the_package_knows_no_tools(path):
    """What makes the demo is no part of what is installed."""
    nodes = list(ast.walk(ast.parse(path.read_text(encoding="utf-8"))))
    imported = [alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names]
    imported += [node.module or "" for node in nodes if isinstance(node, ast.ImportFrom)]
    assert not [name for name in imported if name.split(".")[0] == "tools"]


def test_no_circles():
    graph = {name_of(path): imports_of(path, at_top=True) - {name_of(path)} for path in MODULES}
    list(TopologicalSorter(graph).static_order())  # raises CycleError with the circle


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_modules_can_be_read_in_one_go(path):
    assert len(path.read_text(encoding="utf-8").splitlines()) <= 400


def test_the_segmenter_has_no_way_to_a_truth():
    """Nothing that the predicting side imports, directly or not, may open annotations."""
    graph = {name_of(path): imports_of(path, at_top=False) for path in MODULES}
    reached, todo = set(), ["sa2va_lab.segmenter", "sa2va_lab.loading.load"]
    while todo:
        module = todo.pop()
        if module not in reached:
            reached.add(module)
            todo += graph.get(module, ())
    assert not [module for module in reached if room_of(module) in ("datasets", "evaluation", "views")]


def test_a_command_that_needs_no_network_imports_none():
    """`sa2va-lab audit` or `--help` must not wait seconds for torch; each command imports what it needs."""
    code = "import sys, sa2va_lab.cli\nprint({'torch', 'transformers', 'matplotlib'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], cwd=PACKAGE.parent, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
