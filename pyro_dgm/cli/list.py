# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""The verb ``list``: what there is to choose from, each with its first docstring line.

Nothing is registered: the lists are the rooms' public classes, sorted by what they inherit from.
"""

import inspect
import shutil
from collections.abc import Callable, Sequence
from typing import get_type_hints

from pyro_dgm.cli.describe import first_line
from pyro_dgm.cli.errors import UsageError, nearest
from pyro_dgm.cli.names import members
from pyro_dgm.cli.words import check, split

HELP = """usage: pyro-dgm list [KIND]

Name what there is of a KIND (models, data, nets, flows, priors, posteriors, likelihoods, bounds,
controls, recipes), or of all kinds. Any class of your own goes in by its import path
(--model my_package.MyVAE) and needs no entry here. Models are those that `fit` takes.

example:
  pyro-dgm list priors
  pyro-dgm fit --model.help VAE         the options of one class
"""


def run(args: Sequence[str]) -> int:
    """Print the lists.

    Raises:
        UsageError: If there is no such kind.
    """
    words = split(args)
    check(words, (), names=1)
    kind = words.names[0] if words.names else None
    if kind is not None and kind not in KINDS:
        raise UsageError(f"there is no list of {kind!r}.{nearest(kind, KINDS)} Kinds: {', '.join(KINDS)}.")
    for name in KINDS if kind is None else [kind]:
        print(f"{name}:")
        for key, about in KINDS[name]().items():
            print(_clip(f"  {key:<30} {about}"))
    return 0


def _models() -> dict[str, str]:
    from torch import nn

    return _lines({key: cls for key, cls in _subclasses("pyro_dgm.models", nn.Module).items() if _fits(cls)})


def _fits(model: type) -> bool:
    """Whether `fit` takes a class: a model and its guide, with local variables only, and not made of another model."""
    from pyro_dgm.cli.specs import signature

    if not _is_pair(model) or hasattr(model, "coordinate_statistics"):
        return False
    hints = get_type_hints(model.__init__)  # type: ignore[misc]
    needed = (hints.get(name) for name, part in signature(model).items() if part.default is part.empty)
    return not any(_is_pair(hint) for hint in needed)


def _is_pair(thing: object) -> bool:
    programs = [getattr(thing, name, None) for name in ("model", "guide")]
    return all(callable(program) and "x" in inspect.signature(program).parameters for program in programs)


def _data() -> dict[str, str]:
    from pyro_dgm.data import Dataset

    return _lines(_subclasses("pyro_dgm.data", Dataset))


def _nets() -> dict[str, str]:
    from pyro_dgm.nn import Net

    return _lines(_subclasses("pyro_dgm.nn", Net))


def _flows() -> dict[str, str]:
    from pyro_dgm.transforms import FlowTransform

    return _lines(_subclasses("pyro_dgm.transforms", FlowTransform))


def _bounds() -> dict[str, str]:
    from pyro_dgm.infer import Bound

    return _lines(_subclasses("pyro_dgm.infer", Bound))


def _controls() -> dict[str, str]:
    from pyro_dgm.infer import KLControl

    return _lines(_subclasses("pyro_dgm.infer", KLControl))


def _priors() -> dict[str, str]:
    from pyro_dgm.distributions import Head

    return _lines({name: cls for name, cls in _modules().items() if not issubclass(cls, Head)})


def _posteriors() -> dict[str, str]:
    from pyro_dgm.distributions import Head, Likelihood

    heads = {name: cls for name, cls in _modules().items() if issubclass(cls, Head)}
    return _lines({name: cls for name, cls in heads.items() if not issubclass(cls, Likelihood)})


def _likelihoods() -> dict[str, str]:
    from pyro_dgm.distributions import Likelihood

    return _lines(_subclasses("pyro_dgm.distributions", Likelihood))


def _recipes() -> dict[str, str]:
    from pyro_dgm.cli.cookbook import names, read

    return {name: read(name).title for name in names()}


def _modules() -> dict[str, type]:
    """The modules among the distributions: what returns a distribution when it is called."""
    from torch import nn

    return _subclasses("pyro_dgm.distributions", nn.Module)


def _subclasses(room: str, base: type) -> dict[str, type]:
    return {key: cls for key, cls in members((room,)).items() if issubclass(cls, base) and cls is not base}


def _lines(classes: dict[str, type]) -> dict[str, str]:
    return {key: first_line(classes[key]) for key in sorted(classes)}


def _clip(line: str) -> str:
    width = max(60, shutil.get_terminal_size((120, 24)).columns)
    return line if len(line) <= width else f"{line[: width - 3]}..."


KINDS: dict[str, Callable[[], dict[str, str]]] = {
    "models": _models,
    "data": _data,
    "nets": _nets,
    "flows": _flows,
    "priors": _priors,
    "posteriors": _posteriors,
    "likelihoods": _likelihoods,
    "bounds": _bounds,
    "controls": _controls,
    "recipes": _recipes,
}
