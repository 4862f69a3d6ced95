"""Facts in JSON files beside a checkpoint.

For `condition_model.pth` these are read, if they exist:

- `condition_model.json`, `condition_model.pth.json`, and `condition_model_` or `condition_model.` followed by
  `classes`, `class_names`, `class_to_idx`, `idx_to_class`, `labels` or `config`;
- `classes.json`, `class_names.json`, `class_to_idx.json`, `idx_to_class.json`, `labels.json`, `config.json` and
  `preprocessor_config.json`, unless the folder holds another checkpoint, which they may belong to.

A file holds a dict as a training script or Hugging Face writes it, a list of labels, or labels and indices. A file that
is not valid JSON is an error: it may define the order of the classes.
"""

from __future__ import annotations

import json
import os
import stat
from typing import TYPE_CHECKING, Any

from ..errors import CheckpointError
from .facts import known, read_facts

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from .model import Facts

_MAX_BYTES = 1 << 20
_KINDS = ("classes", "class_names", "class_to_idx", "idx_to_class", "labels", "config")
_SHARED = tuple(f"{kind}.json" for kind in (*_KINDS, "preprocessor_config"))
_CHECKPOINTS = (".pth", ".pt", ".pt2", ".ckpt", ".bin", ".safetensors", ".pkl", ".tar")


def facts_beside(checkpoint: Path) -> Iterator[tuple[Facts, tuple[str, ...]]]:
    """Reads every JSON file that belongs to a checkpoint.

    Raises:
        CheckpointError: One of them is not valid JSON, or too large.
    """
    stem, folder = checkpoint.stem, checkpoint.parent
    names = [f"{stem}.json", f"{checkpoint.name}.json"]
    names += [f"{stem}{joint}{kind}.json" for kind in _KINDS for joint in ("_", ".")]
    own = {name: folder / name for name in dict.fromkeys(names) if name != checkpoint.name}
    shared = {name: folder / name for name in _SHARED if name not in own and (folder / name).exists()}
    for name, path in own.items():
        if path.exists():
            yield read_facts(_load(path), name)
    if shared and _holds_another(checkpoint):
        for name, path in shared.items():
            found, _ = read_facts(_load(path), name)
            if known(found):
                note = (
                    f"Ignored {name}: its folder holds several checkpoints; if it is this one's, name it {stem}_{name}."
                )
                yield type(found)(), (note,)
    else:
        for name, path in shared.items():
            yield read_facts(_load(path), name)


def _holds_another(checkpoint: Path) -> bool:
    with os.scandir(checkpoint.parent) as entries:
        return any(entry.name != checkpoint.name and entry.name.endswith(_CHECKPOINTS) for entry in entries)


def _load(path: Path) -> dict[str, Any]:
    where = f"the file {path.name} beside it"
    try:
        facts = path.stat()
        if not stat.S_ISREG(facts.st_mode) or facts.st_size > _MAX_BYTES:
            raise CheckpointError(f"{where} is not a file of at most {_MAX_BYTES:,} bytes; move it away or correct it.")
        values = json.loads(path.read_bytes(), parse_constant=_reject)
    except OSError as error:
        raise CheckpointError(f"{where} cannot be read ({error.strerror}); correct or remove it.") from error
    # RecursionError: nested too deeply. ValueError: not JSON, not UTF-8, or an endless number.
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{where} is not valid JSON ({str(error)[:80]}); correct or remove it.") from error
    if isinstance(values, list):
        return {"classes": values}
    if not isinstance(values, dict):
        return {}
    # {"clean": 0, "dirty": 1} or {"0": "clean", "1": "dirty"} as the whole file.
    numbers = [*values] if all(isinstance(value, str) for value in values.values()) else [*values.values()]
    if len(values) > 1 and sorted(map(str, numbers)) == sorted(map(str, range(len(values)))):
        return {"class_to_idx": values}
    return values


def _reject(constant: str) -> Any:
    raise ValueError(f"it holds {constant}")
