"""Imports run one way; docs/architecture.md draws the picture."""

import ast
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "diffcut_bench"
# What each room may import of the package besides itself.
ALLOWED = {
    "errors": set(),
    "traces": {"errors"},
    "extras": {"errors"},
    "escaping": set(),
    "redaction": {"errors"},
    "protocol": set(),
    "settings": {"protocol", "redaction", "store"},
    "heap": set(),
    "interruption": set(),
    "matlab": set(),
    "ncut": set(),
    "refinement": {"extras", "ncut"},  # extras: of the dense CRF; ncut: its checks of arguments
    "backbones": {"errors", "extras", "paths", "store"},  # of the store: the atomic write, for the empty prompt
    # Of the store: what lasts a power cut.
    "datasets": {"errors", "extensions", "extras", "interruption", "matlab", "store"},
    "evaluation": {"errors", "extensions", "extras", "protocol", "traces"},
    "extensions": set(),
    "store": {"errors", "traces"},
    "linking": {"evaluation", "ncut", "segmenters"},
    "naming": {"errors", "extras", "backbones", "paths", "store"},
    "segmenters": {"errors", "matlab", "ncut"},  # errors: where a folder of predictions is missing
    "paths": {"errors", "redaction"},
    "config": {"errors", "evaluation", "extensions", "paths", "traces"},
    "coherence": {
        *{"config", "datasets", "environment", "errors", "evaluation", "extras", "interruption", "reporting"},
        *{"scoring", "store"},
    },
    "environment": {"errors", "store"},
    "scoring": {
        *{"errors", "extras", "backbones", "config", "datasets", "environment", "escaping", "evaluation"},
        *{"extensions", "heap"},
        *{"interruption", "linking", "naming", "paths", "refinement", "segmenters", "store", "traces"},
    },
    "reporting": {
        *{"backbones", "config", "datasets", "errors", "escaping", "evaluation", "extensions", "extras", "ncut"},
        *{"paths", "redaction", "refinement", "scoring", "settings", "store"},
    },
    "exporting": {"errors", "escaping", "evaluation", "redaction", "scoring", "settings", "store"},
    "reproduction": {
        *{"errors", "backbones", "coherence", "config", "datasets", "environment", "evaluation", "extensions", "paths"},
        *{"reporting", "scoring", "segmenters", "store", "traces"},
    },
    "segmentation": {
        *{"errors", "extras", "config", "datasets", "environment", "escaping", "heap", "ncut", "paths", "refinement"},
        *{"reporting", "scoring", "segmenters", "store", "traces"},
    },
}


def imported_rooms(path: Path) -> set[str]:
    rooms = set()
    for node in ast.walk(ast.parse(path.read_text())):
        names = []
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        rooms |= {name.split(".")[1] for name in names if name.startswith("diffcut_bench.")}
    return rooms


@pytest.mark.parametrize("room", ALLOWED)
def test_room_knows_only_what_it_may(room):
    place = PACKAGE / room
    files = list(place.rglob("*.py")) if place.is_dir() else [place.with_suffix(".py")]
    assert files
    for path in files:
        assert imported_rooms(path) - {room} <= ALLOWED[room], path


def test_every_room_is_listed():
    rooms = {path.stem for path in PACKAGE.iterdir() if path.suffix == ".py" or (path / "__init__.py").is_file()}
    assert rooms - {"__init__", "__main__", "cli", "commands"} == set(ALLOWED)


def test_the_package_knows_no_benchmarks():
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            assert "benchmarks" not in {name.split(".")[0] for name in names}, path


def test_nothing_knows_the_command_line():
    for path in PACKAGE.rglob("*.py"):
        if path.name != "__main__.py":
            assert "cli" not in imported_rooms(path), path
        if path.parent.name != "commands" and path.name != "cli.py":
            assert "commands" not in imported_rooms(path), path


def test_the_core_imports_torch_only():
    for path in (PACKAGE / "ncut").glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            modules = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            modules += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            for module in modules:
                assert module.split(".")[0] in {"torch", "jaxtyping", "diffcut_bench"} | sys.stdlib_module_names
