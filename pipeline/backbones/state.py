"""State dicts as they are found: read without running code, and matched to a network by name.

Training frameworks save the same tensors in many ways: inside other mappings (``state_dict``,
``model``, ``net``, ``model_ema``), under prefixes (``module.``, ``model.``, ``backbone.``,
``_orig_mod.``), with other heads, without a head, with tensors of the loss. Here the tensors of
the trunk, which all codes depend on, are looked for by name and shape. They are used only where
every one of them is found; everything that differs is named.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from ..errors import BackboneError, first_line
from .catalog import nearest

_OTHERS = (
    (b"\x89hdf", "an HDF5 file (Keras or the like)"),
    (b"gguf", "a GGUF file"),
    (b"<!doctype", "a web page"),
    (b"<html", "a web page"),
    (b"version https://git-", "a Git LFS pointer: git lfs pull fetches the file itself"),
)
_DEPTH = 4  # of mappings inside mappings
_SHOWN = 4  # names in a sentence
_WRAPPERS = ("_orig_mod.", "_fsdp_wrapped_module.", "_checkpoint_wrapped_module.")
_AVERAGED = ("ema", "teacher", "averaged", "swa")  # preferred where several sets of weights fit
_COUNTER = "num_batches_tracked"  # of BatchNorm; no output depends on it
_KINDS = ("weight", "bias", "running_mean", "running_var")  # last words whose order matters


def read_state(path: Path) -> dict[str, dict[str, Tensor]]:
    """Read all mappings of tensors in a file, without running any code in it.

    Parameters
    ----------
    path : Path
        A safetensors file, or what ``torch.save`` wrote.

    Returns
    -------
    dict
        Where in the file each mapping was found (``state_dict``, ``model_ema``; empty for the
        top), to its tensors by name.

    Raises
    ------
    BackboneError
        There is no such file, it cannot be read, it holds no tensors, or it names code.
    """
    if not path.is_file():
        raise BackboneError(
            f"There is no weights file {path}.",
            expected="a safetensors file or a state dict (.pth, .pt, .bin, .ckpt)",
            todo="check the spelling of the path given with WEIGHTS=",
        )
    if other := _other_format(path):
        raise BackboneError(
            f"{path} is {other}, not a state dict.",
            expected="a safetensors file or a state dict (.pth, .pt, .bin, .ckpt)",
            todo="fetch the file again where it is a page or a pointer; else save the tensors with "
            "the program that wrote it: torch.save(network.state_dict(), 'own.pth')",
        )
    saved = _saved(path)
    found: dict[str, dict[str, Tensor]] = {}
    for place, tensors in _mappings(saved, "", _DEPTH):
        if tensors:
            found[place] = tensors
    if not found:
        raise BackboneError(
            f"{path} holds no state dict.",
            expected="a mapping from names to tensors, at the top or inside another mapping",
            todo="save only the tensors: torch.save(network.state_dict(), path)",
        )
    return found


def _other_format(path: Path) -> str:
    """Name what a file is by its first bytes, where it holds no tensors of torch's; else empty."""
    with path.open("rb") as stream:
        head = stream.read(400)
        stream.seek(-min(100_000, path.stat().st_size), 2)
        tail = stream.read()
    if not head:
        return "empty (0 bytes)"
    start = head.lstrip(b"\xef\xbb\xbf \r\n\t")[:20].lower()
    for mark, name in _OTHERS:
        if start.startswith(mark):
            return name
    if path.suffix.lower() in (".onnx", ".tflite", ".pb", ".engine", ".mlmodel"):
        return f"a {path.suffix.lower()[1:].upper()} model"
    if head[:2] == b"PK" and b"/code/" in tail:
        return "a TorchScript program (torch.jit)"
    return ""


def _saved(path: Path) -> Any:
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        return torch.load(path, map_location="cpu", weights_only=True)
    except SafetensorError as error:
        raise BackboneError(
            f"{path} is not a safetensors file: {error}",
            expected="a complete safetensors file",
            todo="fetch or save it again",
        ) from error
    except Exception as error:  # torch raises many kinds, UnpicklingError for code in the file
        names = _code_in(path)
        if names:
            raise BackboneError(
                f"{path} is not loaded: besides tensors it names code ({_listed(names)}), and "
                "loading that could run anything.",
                expected="tensors in plain mappings",
                todo="if you trust the file, save the tensors alone with the program that wrote "
                'it: torch.save(torch.load(path, weights_only=False)["state_dict"], "own.pth")',
            ) from error
        raise BackboneError(
            f"{path} cannot be loaded as a state dict: {first_line(error)}",
            expected="tensors only; a file with code in it is not loaded",
            todo="save only the tensors: torch.save(network.state_dict(), path)",
        ) from error


def _code_in(path: Path) -> list[str]:
    """Name the classes and functions that the file wants imported; nothing is imported."""
    try:
        return sorted(torch.serialization.get_unsafe_globals_in_checkpoint(path))
    except Exception:  # not a file of torch's at all, or an old format
        return []


def _mappings(value: Any, place: str, depth: int) -> Iterator[tuple[str, dict[str, Tensor]]]:
    """Give each mapping's own tensors, and those of the mappings inside it."""
    if not isinstance(value, Mapping):
        return
    yield (
        place,
        {
            str(k): v.dequantize() if v.is_quantized else v
            for k, v in value.items()
            if isinstance(v, Tensor)
        },
    )
    if depth:
        for key, inner in value.items():
            yield from _mappings(inner, f"{place}.{key}" if place else str(key), depth - 1)


@dataclass(frozen=True, eq=False)
class Match:
    """A file's tensors under the network's own names, and what is different.

    Attributes
    ----------
    tensors : dict of str to Tensor
        Every tensor of the trunk, and those of the head where the file has one that fits.
    n_classes : int
        Rows of the head in `tensors`; 0: the file has none that can be used.
    notes : tuple of str
        What was done and left out, by name.
    """

    tensors: dict[str, Tensor]
    n_classes: int
    notes: tuple[str, ...] = ()


@dataclass
class _Candidate:
    """One set of weights in the file: where it is, its prefix, and its tensors without that."""

    place: str
    prefix: str
    tensors: dict[str, Tensor]
    others: list[str] = field(default_factory=list)  # tensors of the mapping outside the prefix

    @property
    def name(self) -> str:
        """For people."""
        parts = [f"its {self.place}"] if self.place else []
        return ", ".join([*parts, *([f"prefix {self.prefix}"] if self.prefix else [])])


def match(
    found: Mapping[str, Mapping[str, Tensor]],
    own: Mapping[str, Tensor],
    final: str | None,
    *,
    file: str,
) -> Match:
    """Find the network's tensors in what a file holds.

    Parameters
    ----------
    found : mapping
        From :func:`read_state`.
    own : mapping of str to Tensor
        The network's state dict (shapes and dtypes are used; meta tensors will do).
    final : str or None
        Name of the network's last layer, which may have another number of classes in the file.
    file : str
        The file's name, for messages.

    Raises
    ------
    BackboneError
        A tensor of the trunk is nowhere in the file, or of another shape; the names are
        compared.
    """
    head = [k for k in own if final and k.rpartition(".")[0] == final]
    trunk = [k for k in own if k not in head and not _optional(k, own[k])]
    candidates = [c for place, some in found.items() for c in _candidates(place, some)]
    fitting = [c for c in candidates if all(_fits(c.tensors.get(k), own[k]) for k in trunk)]
    if not fitting:
        for candidate in candidates:
            renamed = _by_order(candidate.tensors, own, trunk, head)
            if renamed is not None:
                head_tensors, n_classes, notes = _head(renamed, own, head, str(final))
                named = {k: v for k, v in renamed.items() if k in trunk} | head_tensors
                return Match(named, n_classes, ("names matched by order", *notes))
        raise _mismatch(file, candidates, own, trunk, head)
    chosen = _preferred(fitting)
    notes = [chosen.name] if chosen.name else []
    rivals = [c for c in fitting if c is not chosen and not _equal(c, chosen, trunk)]
    if rivals:
        notes.append(
            "other weights in it that fit too: "
            + _listed([c.name or "those without a prefix" for c in rivals])
        )
    tensors = {k: chosen.tensors[k] for k in own if k in trunk}
    tensors |= {
        k: chosen.tensors[k]
        for k in own
        if k not in head and k not in tensors and _fits(chosen.tensors.get(k), own[k])
    }
    head_tensors, n_classes, said = _head(chosen.tensors, own, head, str(final))
    used = {*tensors, *(_source_names(chosen.tensors, head_tensors))}
    extra = [chosen.prefix + k for k in chosen.tensors if k not in used] + chosen.others
    if head and not n_classes:
        extra_head = [k for k in extra if k.startswith(f"{chosen.prefix}{final}.")]
        extra = [k for k in extra if k not in extra_head]
        said = (
            [f"its head is not used: {_grouped(extra_head)}"]
            if extra_head
            else [f"without a head: {_listed(head)}"]
        )
    extra = [k for k in extra if not k.endswith(_COUNTER) and k != "n_averaged"]
    if extra:
        said.append(f"not used: {_grouped(extra)}")
    return Match(tensors | head_tensors, n_classes, (*notes, *said))


def _candidates(place: str, mapping: Mapping[str, Tensor]) -> list[_Candidate]:
    """List the sets of weights in a mapping: one for each prefix that its names have."""
    plain = {_bare(name): tensor for name, tensor in mapping.items()}
    prefixes = {"": None}  # in the order of the file
    for name in plain:
        parts = name.split(".")
        for n in range(1, min(len(parts), _DEPTH + 1)):
            prefixes[".".join(parts[:n]) + "."] = None
    candidates = []
    for prefix in sorted(prefixes, key=lambda p: p.count(".")):
        inside = {k[len(prefix) :]: v for k, v in plain.items() if k.startswith(prefix)}
        others = [k for k in plain if not k.startswith(prefix)]
        candidates.append(_Candidate(place, prefix, inside, others))
    return candidates


def _bare(name: str) -> str:
    """Remove what compiling and sharding put into names."""
    for wrapper in _WRAPPERS:
        name = name.replace(wrapper, "")
    return name


def _optional(name: str, tensor: Tensor) -> bool:
    """Whether a network can do without a saved value: counters, and indices it works out itself."""
    return name.endswith(_COUNTER) or not tensor.is_floating_point()


def _fits(tensor: Tensor | None, own: Tensor) -> bool:
    return tensor is not None and tensor.shape == own.shape


def _preferred(fitting: list[_Candidate]) -> _Candidate:
    """Choose the averaged weights where there are some (as timm does), else the first."""
    for candidate in fitting:
        words = re.split(r"[._]", f"{candidate.place}.{candidate.prefix}".lower())
        if any(word in words for word in _AVERAGED):
            return candidate
    return fitting[0]


def _equal(a: _Candidate, b: _Candidate, trunk: list[str]) -> bool:
    return all(torch.equal(a.tensors[k], b.tensors[k]) for k in trunk)


def _head(
    tensors: Mapping[str, Tensor], own: Mapping[str, Tensor], head: list[str], final: str
) -> tuple[dict[str, Tensor], int, list[str]]:
    """Find the last layer's tensors: by name, or as the one linear layer in a sequence there.

    Returns
    -------
    tensors : dict
        Under the network's own names; empty where there are none.
    n_classes : int
        Their rows.
    notes : list of str
        For people.
    """
    if not head:
        return {}, 0, []
    weight = own.get(f"{final}.weight")
    if weight is None:
        return {}, 0, []
    below = {k: v for k, v in tensors.items() if k.startswith(f"{final}.")}
    matrices = [k for k, v in below.items() if k.endswith("weight") and v.ndim >= 2]
    if len(matrices) != 1 or any(v.ndim < 2 and k.endswith("weight") for k, v in below.items()):
        return {}, 0, []
    name = matrices[0]
    given = below[name]
    if given.shape[1:].numel() != weight.shape[1:].numel() or given.shape[1] != weight.shape[1]:
        return {}, 0, []
    bias = below.get(name.removesuffix("weight") + "bias")
    if bias is not None and bias.shape != given.shape[:1]:
        return {}, 0, []
    found = {f"{final}.weight": given.reshape(len(given), *weight.shape[1:])}
    if f"{final}.bias" in own:
        found[f"{final}.bias"] = bias if bias is not None else torch.zeros(len(given))
    elif bias is not None:
        return {}, 0, []
    notes = [] if len(given) == len(weight) else [f"head of {len(given)} classes"]
    if name != f"{final}.weight":
        notes.append(f"head from {name.removesuffix('.weight')}")
    return found, len(given), notes


def _source_names(tensors: Mapping[str, Tensor], head: Mapping[str, Tensor]) -> list[str]:
    """Name the file's tensors that became the head."""
    storages = {t.untyped_storage().data_ptr() for t in head.values()}
    return [k for k, v in tensors.items() if v.untyped_storage().data_ptr() in storages]


def _by_order(
    tensors: Mapping[str, Tensor], own: Mapping[str, Tensor], trunk: list[str], head: list[str]
) -> dict[str, Tensor] | None:
    """Rename the tensors of another implementation: the same shapes and kinds in the same order.

    The last word of a name (weight, bias, running_mean, running_var) must be the same where both
    names have one, since these four have equal shapes and could change places unseen.
    """
    given = [(k, v) for k, v in tensors.items() if not _optional(k, v)]
    wanted = trunk + [k for k in own if k in head]
    wanted = [k for k in own if k in set(wanted)]  # in the network's own order
    for names in (wanted, [k for k in wanted if k not in head]):
        if len(given) != len(names):
            continue
        pairs = list(zip(names, given, strict=True))
        if all(
            _alike(name, other) and (v.shape == own[name].shape or _other_rows(name, head, v, own))
            for name, (other, v) in pairs
        ):
            return {name: v for name, (_, v) in pairs}
    return None


def _other_rows(name: str, head: list[str], tensor: Tensor, own: Mapping[str, Tensor]) -> bool:
    return name in head and tensor.shape[1:] == own[name].shape[1:]


def _alike(name: str, other: str) -> bool:
    a, b = name.rpartition(".")[2], other.rpartition(".")[2]
    return a == b or b not in _KINDS


def _mismatch(
    file: str,
    candidates: list[_Candidate],
    own: Mapping[str, Tensor],
    trunk: list[str],
    head: list[str],
) -> BackboneError:
    """Compare the names of the set that comes nearest with the network's."""
    best = max(candidates, key=lambda c: sum(_fits(c.tensors.get(k), own[k]) for k in trunk))
    given = best.tensors
    missing = [k for k in trunk if k not in given]
    shapes = [k for k in trunk if k in given and given[k].shape != own[k].shape]
    unknown = [k for k in given if k not in own and not k.endswith(_COUNTER)]
    parts = []
    if missing:
        parts.append(f"the network's {_listed(missing)} {_is(missing)} not in the file")
    if shapes:
        parts.append(
            "of other shapes: "
            + _listed([f"{k} {tuple(given[k].shape)} for {tuple(own[k].shape)}" for k in shapes])
        )
    if unknown:
        parts.append(f"the file's {_listed(unknown)} {_is(unknown)} not in the network")
    where = f" ({best.name})" if best.name else ""
    close = nearest(missing[0], unknown, 1)[0] if missing and unknown else ""
    return BackboneError(
        f"{file}{where} does not fit this network: {'; '.join(parts)}.",
        expected="every tensor of the network except its head, under the same name (a common "
        "prefix is removed) and of the same shape",
        todo="set MODEL to the network that these weights were saved from"
        + (f"; the name nearest to {missing[0]} in the file is {close}" if close else ""),
    )


def _is(names: list[str]) -> str:
    return "is" if len(names) == 1 else "are"


def _grouped(names: list[str]) -> str:
    """Name all: where they are many, by the outermost module and their number."""
    if len(names) <= _SHOWN:
        return ", ".join(names)
    counts: dict[str, int] = {}
    for name in names:
        top = name.split(".")[0]
        counts[top] = counts.get(top, 0) + 1
    return ", ".join(f"{top}.* ({n} tensors)" for top, n in counts.items())


def _listed(names: list[str]) -> str:
    """Name the first few, and say how many more there are."""
    more = len(names) - _SHOWN
    return ", ".join(names[:_SHOWN]) + (f" and {more} more" if more > 0 else "")
