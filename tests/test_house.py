# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""The architecture, held by tests: arrows, sizes, names, first lines, families and the map in the README.

``python -m tests.test_house`` writes the map anew.
"""

import ast
import configparser
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.families import FAMILIES, NOT_A_FAMILY

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "pyro_dgm"
SETUP = configparser.ConfigParser()
SETUP.read(ROOT / "setup.cfg")
ROOMS = re.findall(r"\w+", SETUP["importlinter:contract:rooms"]["layers"])  # from the top of the house to the ground
FILES = sorted(path for folder in ("pyro_dgm", "tests", "benchmarks") for path in (ROOT / folder).rglob("*.py"))
FILES += [ROOT / "conftest.py"]
SHIPPED = [path for path in FILES if PACKAGE in path.parents]

LICENCE = "# Copyright Contributors to the pyro_dgm project.\n# SPDX-License-Identifier: Apache-2.0\n"
FORBIDDEN_NAMES = {"utils", "util", "helpers", "helper", "common", "core", "misc", "tools"}
FORBIDDEN_WORDS = re.compile(r"\bT[O]DO\b|\bF[I]XME\b|\bX[X]X\b|\bH[A]CK\b|doctest:\s*\+S[K]IP")
ABSOLUTE_PATH = re.compile(r"(?<![\w.:/-])/(?:home|root|tmp|work|mnt|Users)/|\b[A-Z]:\\\\")

LONG_FILES = {"tests/cases.py": "the list of every family"}  # longer than 300 lines, and why; three at most

# Too slow for those who want a model or a bound only.
HEAVY = {"lightning", "matplotlib", "pooch", "scipy", "sklearn", "tensorboard", "jsonargparse", "rich"}


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def first_line(path: Path) -> str:
    """The first line of a module's docstring, or the title of a recipe."""
    if path.suffix == ".yaml":
        title = re.search(r"(?m)^title: *[\"']?(.*?)[\"']?$", path.read_text(encoding="utf-8"))
        return title.group(1) if title else ""
    return (ast.get_docstring(tree_of(path)) or "").split("\n", 1)[0]


def public_names(room: str) -> list[str]:
    for node in tree_of(PACKAGE / room / "__init__.py").body:
        if isinstance(node, ast.Assign | ast.AnnAssign) and ast.unparse(node).startswith("__all__"):
            return list(ast.literal_eval(node.value or ast.List()))
    return []


def public_classes(room: str) -> set[str]:
    nodes = (node for path in (PACKAGE / room).glob("*.py") for node in tree_of(path).body)
    return {node.name for node in nodes if isinstance(node, ast.ClassDef)} & set(public_names(room))


def lines_of(function: ast.FunctionDef) -> int:
    """Lines from ``def`` to the end, without the docstring."""
    total = (function.end_lineno or 0) - function.lineno + 1
    if ast.get_docstring(function) is not None:
        total -= (function.body[0].end_lineno or 0) - function.body[0].lineno + 1
    return total


def python(code: str) -> str:
    """What a fresh interpreter prints."""
    return subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, capture_output=True, text=True).stdout


def the_map() -> str:
    """The rooms from the top down, each file with its first docstring line."""
    lines = []
    for folder in (*ROOMS, "recipes"):
        init = PACKAGE / folder / "__init__.py"
        files = sorted({*init.parent.glob("*.py"), *init.parent.glob("*.yaml")} - {init})
        title = first_line(init) if init.exists() else "Published tables as data: YAML, no code."
        width = max((len(path.name) for path in files), default=0)
        lines += ["", f"{folder}/  {title}", *(f"    {path.name:{width}}  {first_line(path)}" for path in files)]
    return "\n".join(lines[1:])


def readme_with_the_map(text: str) -> str:
    before, begin, rest = text.partition("<!-- map -->\n")
    _, end, after = rest.partition("<!-- end of the map -->")
    if not end:
        raise ValueError("README.md needs the two lines <!-- map --> and <!-- end of the map -->.")
    return f"{before}{begin}```text\n{the_map()}\n```\n{end}{after}"


# The house.


def test_every_folder_is_a_room() -> None:
    folders = {path.name for path in PACKAGE.iterdir() if path.is_dir() and path.name != "__pycache__"}
    unknown = folders - set(ROOMS) - {"recipes"}
    assert not unknown, f"{sorted(unknown)} are no rooms: put the files into one of {ROOMS}"
    assert not (missing := set(ROOMS) - folders), f"setup.cfg lists the rooms {sorted(missing)} that are not there"
    loose = [name_of(path) for path in PACKAGE.glob("*.py") if path.name != "__init__.py"]
    assert not loose, f"{loose} lie outside every room: move them into the room that their lines are for"


def test_arrows_point_down() -> None:
    lint = subprocess.run([Path(sys.executable).with_name("lint-imports")], cwd=ROOT, capture_output=True, text=True)
    assert lint.returncode == 0, f"an import goes up or sideways; move the line or the need:\n{lint.stdout}"


def test_names_say_what_is_inside() -> None:
    found = [name_of(path) for path in FILES if FORBIDDEN_NAMES & {*path.relative_to(ROOT).parts, path.stem}]
    assert not found, f"{found}: these names say nothing; name the room or the thing"


def test_tests_mirror_the_rooms() -> None:
    rooms = {path.parent.name for path in SHIPPED if path.parent != PACKAGE and path.name != "__init__.py"}
    untested = [room for room in sorted(rooms) if not list((ROOT / "tests" / room).glob("test_*.py"))]
    assert not untested, f"add tests/ROOM/test_*.py for {untested}: these rooms have no test"
    extra = (
        {path.parent.name for path in (ROOT / "tests").glob("*/*.py")}
        - set(ROOMS)
        - {"recipes", "theorems", "tutorials", "benchmarks"}
    )
    assert not extra, f"tests/{sorted(extra)} mirror nothing: the folders of tests are the rooms {ROOMS}"


# Its doors.


@pytest.mark.parametrize("room", ROOMS)
def test_the_door_of_a_room(room: str) -> None:
    path = PACKAGE / room / "__init__.py"
    names = public_names(room)
    assert len(path.read_text(encoding="utf-8").splitlines()) <= 80, f"{name_of(path)} has more than 80 lines"
    assert names == sorted(names), f"sort __all__ of {name_of(path)}: {sorted(names)}"
    assert len(names) <= 40, f"{name_of(path)} has {len(names)} names: 40 are what a reader can scan; split the room"
    other = [
        ast.unparse(node)
        for node in tree_of(path).body[1:]
        if not isinstance(node, ast.Import | ast.ImportFrom) and "__all__" not in ast.unparse(node)
    ]
    assert not other, f"{name_of(path)} holds only docstring, imports and __all__; move {other}"


@pytest.mark.parametrize("room", FAMILIES)
def test_every_member_of_a_family_is_in_cases(room: str) -> None:
    named: set[str] = set()
    for node in tree_of(ROOT / "tests" / "cases.py").body:
        targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
        if isinstance(targets[0], ast.Name) and targets[0].id in FAMILIES[room]:
            named |= {part.id for part in ast.walk(node) if isinstance(part, ast.Name)}
            named |= {part.attr for part in ast.walk(node) if isinstance(part, ast.Attribute)}
    missing = public_classes(room) - named - set(NOT_A_FAMILY)
    assert not missing, f"add {sorted(missing)} to {' or '.join(FAMILIES[room])} in tests/cases.py"


def test_exceptions_from_a_family_exist() -> None:
    gone = set(NOT_A_FAMILY) - set().union(*map(public_classes, FAMILIES))
    assert not gone, f"take {sorted(gone)} out of NOT_A_FAMILY: no family room has them"


# Its files.


def test_every_file_opens_with_the_licence() -> None:
    paths = [*FILES, *PACKAGE.glob("recipes/*.yaml")]
    wrong = [name_of(path) for path in paths if not path.read_text(encoding="utf-8").startswith(LICENCE)]
    assert not wrong, f"{wrong} must start with the lines\n{LICENCE}"


def test_every_file_says_in_one_sentence_what_it_is() -> None:
    untitled = [name_of(path) for path in PACKAGE.glob("recipes/*.yaml") if not first_line(path)]
    assert not untitled, f"{untitled}: give the recipe a line `title: ...`"
    said = {name_of(path): first_line(path) for path in FILES}
    wrong = {name: line for name, line in said.items() if not re.fullmatch(r"\S.*[^.]\.", line)}
    wrong |= {name: line for name, line in said.items() if re.search(r"[.!?] [A-Z]", line)}
    assert not wrong, f"the first docstring line is one sentence with a full stop: {wrong}"


def test_files_are_short() -> None:
    sizes = {name_of(path): len(path.read_text(encoding="utf-8").splitlines()) for path in FILES}
    long = {name: lines for name, lines in sizes.items() if lines > 300 and name not in LONG_FILES}
    assert not long, f"300 lines are the most, split {long}"


def test_functions_are_short() -> None:
    nodes = [(path, node) for path in FILES for node in ast.walk(tree_of(path)) if isinstance(node, ast.FunctionDef)]
    long = {f"{name_of(path)} {node.name}": lines_of(node) for path, node in nodes if lines_of(node) > 40}
    assert not long, f"40 lines without the docstring are the most, split {long}"


def test_a_file_holds_one_public_thing() -> None:
    classes = {
        name_of(path): [
            node.name for node in tree_of(path).body if isinstance(node, ast.ClassDef) and node.name[0] != "_"
        ]
        for path in SHIPPED
    }
    full = {name: names for name, names in classes.items() if len(names) > 3}
    assert not full, f"one public class in a file, three at most where they are one thing; move some of {full}"


def test_long_files_are_few_and_long() -> None:
    assert len(LONG_FILES) <= 3, "three files may be longer than 300 lines; split one"
    short = [name for name in LONG_FILES if len((ROOT / name).read_text(encoding="utf-8").splitlines()) <= 300]
    assert not short, f"take {short} out of LONG_FILES: they are short now"


def test_what_a_user_does_wrong_is_raised() -> None:
    nodes = [(path, node) for path in SHIPPED for node in ast.walk(tree_of(path))]
    found = [f"{name_of(path)}:{node.lineno}" for path, node in nodes if isinstance(node, ast.Assert)]
    assert not found, f"{found}: raise an error; `python -O` removes an assert"


def test_nothing_is_passed_over() -> None:
    nodes = [(path, node) for path in FILES for node in ast.walk(tree_of(path)) if isinstance(node, ast.ExceptHandler)]
    silent = [
        f"{name_of(path)}:{node.lineno}" for path, node in nodes if all(isinstance(x, ast.Pass) for x in node.body)
    ]
    assert not silent, f"{silent}: an error is caught and passed over; handle it or let it go"


def test_nothing_is_left_for_later() -> None:
    words = {name_of(path): FORBIDDEN_WORDS.findall(path.read_text(encoding="utf-8")) for path in FILES}
    found = {name: said for name, said in words.items() if said}
    assert not found, f"finish it, or leave it out: {found}"


def test_no_file_knows_this_machine() -> None:
    texts = [*FILES, *ROOT.glob("*.*"), ROOT / "Makefile", ROOT / ".ci" / "run", *PACKAGE.glob("recipes/*.yaml")]
    texts += (ROOT / "tutorials").glob("*.ipynb")
    paths = {name_of(path): ABSOLUTE_PATH.findall(path.read_text(encoding="utf-8")) for path in texts if path.is_file()}
    found = {name: there for name, there in paths.items() if there}
    assert not found, f"absolute paths are of one machine only: {found}"


# Its front step.


STATE = """
import random, warnings, numpy, pyro, torch
def state():
    return {
        "chance of Python": random.getstate(), "chance of NumPy": str(numpy.random.get_state()),
        "chance of torch": torch.get_rng_state().tolist(), "default dtype": torch.get_default_dtype(),
        "threads": torch.get_num_threads(), "gradients": torch.is_grad_enabled(), "settings": pyro.settings.get(),
        "parameter store": list(pyro.get_param_store()), "warnings": list(warnings.filters),
        "torch": dict(vars(torch)), "Pyro": dict(vars(pyro)), "Transform": dict(vars(torch.distributions.Transform)),
        "Distribution": dict(vars(torch.distributions.Distribution)), "Module": dict(vars(torch.nn.Module)),
    }
before = state()
import pyro_dgm
after = state()
print(*(name for name in before if before[name] != after[name]), sep=", ")
"""


def test_import_changes_nothing() -> None:
    assert not (changed := python(STATE).strip()), f"`import pyro_dgm` must change nothing; it changed: {changed}"


def test_import_is_light() -> None:
    below = ROOMS[ROOMS.index("models") :]
    rooms = "\n".join(f"import pyro_dgm.{room}" for room in below)
    told = python(f"import sys, pyro_dgm\nprint(*sys.modules)\nimport torch, pyro\n{rooms}\nprint(*sys.modules)")
    alone, with_rooms = (set(line.split()) for line in told.splitlines())
    found = sorted(alone & (HEAVY | {"torch", "pyro", "numpy"}))
    assert not found, f"`import pyro_dgm` loads {found}: it has to import nothing"
    assert not (found := sorted(with_rooms & HEAVY)), f"importing {below} loads {found}: leave them to the rooms above"


def test_the_map_is_the_tree() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert text == readme_with_the_map(text), "the map in README.md is old: run `python -m tests.test_house`"


if __name__ == "__main__":
    readme = ROOT / "README.md"
    readme.write_text(readme_with_the_map(readme.read_text(encoding="utf-8")), encoding="utf-8")
