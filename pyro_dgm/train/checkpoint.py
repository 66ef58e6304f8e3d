# Copyright Contributors to the pyro_dgm project.
# SPDX-License-Identifier: Apache-2.0
"""A checkpoint is a folder with all that training needs to continue to the bit: weights, state, and their checksums."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from pyro_dgm import __version__
from pyro_dgm.train.durable import write_folder
from pyro_dgm.train.errors import CheckpointError
from pyro_dgm.train.plain import pack, unpack

FORMAT = 1
MANIFEST, TENSORS, STATE = "manifest.json", "state.safetensors", "state.json"
SUFFIX = ".safetensors"


@dataclass(frozen=True)
class Checkpoint:
    """A complete checkpoint; every file that is read is compared with its SHA-256 in the manifest.

    ========================  =================================================================================
    ``weights.safetensors``   the module's weights
    ``averaged.safetensors``  their moving average, where there is one
    ``best.safetensors``      the weights (averaged ones, if there are) with the lowest validation loss so far
    ``state.json``            the rest as plain data: optimiser, counters, random states, module classes
    ``state.safetensors``     the tensors in it
    ``manifest.json``         format version, and each file's SHA-256
    ========================  =================================================================================

    Args:
        path: The folder.
    """

    path: Path

    @classmethod
    def write(
        cls, path: Path, module: nn.Module, state: dict[str, Any], copies: Mapping[str, dict[str, Tensor]] | None = None
    ) -> Self:
        """Write a checkpoint that appears complete or not at all.

        Args:
            path: Its folder, which must not exist yet.
            module: Whose weights to save.
            state: Plain data and tensors, see `pyro_dgm.train.plain.pack`.
            copies: Other values of the module's state dict, by name: ``averaged``, ``best``.

        Returns:
            The checkpoint.

        Raises:
            OSError: If it cannot be written. Nothing is left behind then.
        """
        text, tensors = pack({"modules": _classes(module), "state": state})
        files = {TENSORS: _serialise(tensors), STATE: text.encode()}
        for name, weights in {"weights": module.state_dict(), **(copies or {})}.items():
            files[name + SUFFIX] = _serialise(weights)
        manifest = {
            "format": FORMAT,
            "pyro_dgm": __version__,
            "torch": torch.__version__,
            "sha256": {name: hashlib.sha256(content).hexdigest() for name, content in files.items()},
        }
        write_folder(path, {**files, MANIFEST: json.dumps(manifest, indent=1).encode()})
        return cls(path)

    def problem(self) -> str | None:
        """Say what is damaged, or None if nothing is.

        Raises:
            CheckpointError: If it is of another format version.
        """
        try:
            for name in self._sha256():
                self._read(name)
        except _Damaged as error:
            return str(error)
        return None

    def weights(self, *names: str) -> dict[str, Tensor]:
        """Read the weights.

        Args:
            *names: Of ``best``, ``averaged`` and ``weights``, the first that there is; ``weights`` if none is given.

        Raises:
            CheckpointError: If the checkpoint is damaged or of another version.
        """
        files = self._sha256()
        return self._tensors(next(n + SUFFIX for n in (*names, "weights") if n + SUFFIX in files))

    def state(self) -> dict[str, Any]:
        """Read what was given to `write` as ``state``.

        Raises:
            CheckpointError: If the checkpoint is damaged or of another version.
        """
        return self._document()["state"]

    def restore(self, module: nn.Module) -> dict[str, Any]:
        """Put the weights into a module of the same architecture, and read the state.

        Args:
            module: As the one that was saved: the same classes, names, shapes and dtypes.

        Returns:
            The state.

        Raises:
            CheckpointError: If it is another model's, or damaged, or of another version.
        """
        document, weights = self._document(), self.weights()
        self.check(module, weights, classes=document["modules"])
        module.load_state_dict(weights)
        return document["state"]

    def check(self, module: nn.Module, weights: dict[str, Tensor], *, classes: dict[str, str] | None = None) -> None:
        """Refuse weights that are not of this module.

        Args:
            module: Where the weights are to go.
            weights: This checkpoint's weights.
            classes: The class of every module inside, if these and the dtypes must agree too.

        Raises:
            CheckpointError: If they differ; the message names up to five differing entries.
        """
        strict = classes is not None
        mine = {name: _describe(value, dtype=strict) for name, value in module.state_dict().items()}
        saved = {name: _describe(value, dtype=strict) for name, value in weights.items()}
        if classes is not None:
            mine |= {f"module {name}": kind for name, kind in _classes(module).items()}
            saved |= {f"module {name}": kind for name, kind in classes.items()}
        names = [name for name in [*mine, *sorted(saved.keys() - mine.keys())] if mine.get(name) != saved.get(name)]
        if names:
            lines = [f"  {n}: {saved.get(n, 'absent')} saved, {mine.get(n, 'absent')} here" for n in names[:5]]
            more = [f"  and {len(names) - 5} more"] if len(names) > 5 else []
            raise CheckpointError(
                f"The checkpoint {self.path} is of another model; it differs in\n"
                + "\n".join(lines + more)
                + "\nBuild the model with the configuration it was trained with (config.yaml in the run folder)."
            )

    def _sha256(self) -> dict[str, str]:
        try:
            manifest = json.loads((self.path / MANIFEST).read_bytes())
            version, sha256 = manifest["format"], manifest["sha256"]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise _Damaged(f"{self.path / MANIFEST} cannot be read ({error})") from error
        if version != FORMAT:
            raise CheckpointError(
                f"The checkpoint {self.path} has format version {version} (written by pyro_dgm "
                f"{manifest.get('pyro_dgm', 'unknown')}), but pyro_dgm {__version__} reads version {FORMAT}: use the "
                f"version that wrote it."
            )
        return sha256

    def _read(self, name: str) -> bytes:
        try:
            content = (self.path / name).read_bytes()
        except OSError as error:
            raise _Damaged(f"{self.path / name} cannot be read ({error.strerror})") from error
        if hashlib.sha256(content).hexdigest() != self._sha256().get(name):
            raise _Damaged(f"{self.path / name} differs from its checksum")
        return content

    def _tensors(self, name: str) -> dict[str, Tensor]:
        try:
            return safetensors.torch.load(self._read(name))
        except SafetensorError as error:
            raise _Damaged(f"{self.path / name} is not a safetensors file ({error})") from error

    def _document(self) -> dict[str, Any]:
        return unpack(self._read(STATE).decode(), self._tensors(TENSORS))


class _Damaged(CheckpointError):
    """A checkpoint's file is missing or not as it was written."""


def _serialise(tensors: dict[str, Tensor]) -> bytes:
    for name, value in tensors.items():
        if not isinstance(value, Tensor):
            raise TypeError(f"The module's state {name} is a {type(value).__name__}: only tensors can be saved.")
    copies = {
        name: torch.empty_like(t, device="cpu", memory_format=torch.contiguous_format).copy_(t.detach())
        for name, t in tensors.items()
    }  # a copy each: safetensors takes neither views nor shared memory
    return safetensors.torch.save(copies)


def _describe(value: Tensor, *, dtype: bool) -> str:
    shape = "x".join(map(str, value.shape)) if value.dim() else "scalar"
    return f"{value.dtype} {shape}".removeprefix("torch.") if dtype else shape


def _classes(module: nn.Module) -> dict[str, str]:
    return {name or "(itself)": f"{type(m).__module__}.{type(m).__qualname__}" for name, m in module.named_modules()}
