# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""What is shipped and how it is set up: versions, dependencies, commands and a wheel that runs on its own."""

import ast
import configparser
import importlib.metadata
import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pyro_dgm

ROOT = Path(__file__).parents[1]
SETUP = configparser.ConfigParser()
SETUP.read(ROOT / "setup.cfg")
# Declared, though no line in the package imports them by name, each with the reason.
NOT_IMPORTED = {"tensorboard": "torch.utils.tensorboard imports it"}
OURS_OR_PYTHONS = {"pyro_dgm", *sys.stdlib_module_names}

# Libraries that one or two rooms need, and those rooms: nobody else imports them.
NEEDED_IN = {
    "jsonargparse": {"cli"},
    "lightning": {"train"},
    "matplotlib": {"plots", "cli"},
    "pooch": {"data"},
    "rich": {"train", "cli"},
    "safetensors": {"train", "cli"},
    "scipy": {"data", "evaluate", "models"},
    "sklearn": {"cli", "data", "evaluate", "models", "plots"},
    "tensorboard": {"train"},
    "yaml": {"train", "cli"},
}


def canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def required() -> set[str]:
    lines = SETUP["options"]["install_requires"].split("\n")
    return {canonical(match.group()) for line in lines if (match := re.match(r"[\w.-]+", line))}


def pinned() -> dict[str, str]:
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    return dict(line.split("==") for line in lines if line and not line.startswith("#"))


def imports_of(path: Path) -> set[str]:
    """The top-level names of all that a file imports, wherever in the file."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {name.name.split(".")[0] for name in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names.add(node.module.split(".")[0])
    return names


def test_every_dependency_says_why() -> None:
    lines = [line.strip() for line in (ROOT / "setup.cfg").read_text(encoding="utf-8").splitlines()]
    begin, end = lines.index("install_requires ="), lines.index("[options.packages.find]")
    silent = [
        line
        for above, line in zip(lines[begin:end], lines[begin + 1 : end], strict=False)
        if re.match(r"[\w-]+(\[\w+\])?( [<>=]=? [\d.]+)?$", line) and not above.startswith("#")
    ]
    assert not silent, f"setup.cfg: write a comment above {silent} that says why it is needed"


def test_every_import_is_declared_and_every_declaration_is_used() -> None:
    imported = set().union(*map(imports_of, (ROOT / "pyro_dgm").rglob("*.py")))
    projects = importlib.metadata.packages_distributions()
    used = {canonical(projects[name][0]) for name in imported - OURS_OR_PYTHONS}
    assert not (undeclared := used - required()), f"add {sorted(undeclared)} to install_requires in setup.cfg"
    unused = required() - used - set(NOT_IMPORTED)
    assert not unused, f"take {sorted(unused)} out of install_requires: nothing imports them"


def test_a_library_stays_in_its_room() -> None:
    strays = []
    for room in (path for path in (ROOT / "pyro_dgm").iterdir() if path.is_dir()):
        closed = {name for name, rooms in NEEDED_IN.items() if room.name not in rooms}
        strays += [
            f"{path.relative_to(ROOT)}: {name}" for path in room.glob("*.py") for name in imports_of(path) & closed
        ]
    assert not strays, f"leave these to the rooms that need them, see NEEDED_IN: {strays}"


def test_constraints_are_exact_public_versions() -> None:
    versions = pinned()
    wrong = {name: version for name, version in versions.items() if not re.fullmatch(r"[\d.]+(post\d+)?", version)}
    assert not wrong, f"constraints.txt: no local, URL or unfinished versions: {wrong}"
    names = {canonical(name) for name in versions}
    lines = "\n".join(SETUP["options.extras_require"].values()).split("\n")
    extras = {canonical(line) for line in lines if re.match(r"\w", line)}
    assert not (open_ := (required() | extras) - names), f"constraints.txt: pin {sorted(open_)}"


def test_the_tests_run_with_the_constraints() -> None:
    versions = {canonical(name): version for name, version in pinned().items()}
    here = {name: importlib.metadata.version(name).split("+")[0] for name in required()}
    other = {name: version for name, version in here.items() if versions[name] != version}
    assert not other, f"installed are {other}, constraints.txt says otherwise: run `make setup`"


def test_pyproject_holds_build_system_and_ruff_only() -> None:
    content = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    assert set(content) == {"build-system", "tool"}, (
        "pyproject.toml: everything but build-system and ruff is in setup.cfg"
    )
    assert set(content["tool"]) == {"ruff"}, "pyproject.toml: everything but build-system and ruff is in setup.cfg"


def test_the_makefile_has_six_commands_of_one_line() -> None:
    lines = (ROOT / "Makefile").read_text(encoding="utf-8").splitlines()
    commands = [line.split(":")[0] for line in lines if re.match(r"[a-z]+:", line)]
    assert commands == ["setup", "demo", "test", "lint", "bench", "docs"], "Makefile: six commands, each one line"


def test_the_changelog_knows_this_version() -> None:
    text = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert f"\n## {pyro_dgm.__version__}" in text, f"CHANGELOG.md: add a section `## {pyro_dgm.__version__}`"


def test_the_wheel_is_complete_and_runs_outside_the_checkout(tmp_path: Path) -> None:
    source, wheels, site = tmp_path / "source", tmp_path / "wheels", tmp_path / "site"
    shutil.copytree(ROOT / "pyro_dgm", source / "pyro_dgm", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("setup.cfg", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source / name)
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check"]
    build = ["wheel", "--quiet", "--no-deps", "--no-build-isolation", "--wheel-dir", wheels, source]
    subprocess.run([*pip, *build], check=True, capture_output=True)
    (wheel,) = wheels.glob("*.whl")
    install = ["install", "--quiet", "--no-deps", "--no-index", "--target", site, wheel]
    subprocess.run([*pip, *install], check=True, capture_output=True)
    kept = {
        path.relative_to(ROOT) for path in (ROOT / "pyro_dgm").rglob("*") if path.suffix in {".py", ".yaml", ".typed"}
    }
    missing = sorted(str(path) for path in kept if not (site / path).exists())
    assert not missing, f"the wheel lacks {missing}: see package_data in setup.cfg"
    assert list(site.glob("*.dist-info/licenses/LICENSE")), (
        "the wheel lacks the licence: see license_files in setup.cfg"
    )
    code = (
        "import pyro_dgm, sys; from pyro_dgm.cli.main import main; print(pyro_dgm.__file__); sys.exit(main(['list']))"
    )
    run = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(site)},
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, f"`pyro-dgm list` from the wheel failed:\n{run.stderr}"
    assert run.stdout.startswith(str(site)), f"not the wheel ran, but {run.stdout.splitlines()[0]}"
    assert "digits" in run.stdout, f"`pyro-dgm list` from the wheel does not know the recipe digits:\n{run.stdout}"
