"""A file's tensors under a network's own names: matched by name and shape, or by order.

Tensors stand under prefixes (``module.``, ``model.``, ``backbone.``, ``_orig_mod.``), with other
heads, without a head, with tensors of the loss. The tensors of the trunk, which all codes depend
on, are looked for by name and shape. They are used only where every one of them is found;
everything that differs is named.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from ..errors import BackboneError
from .catalog import nearest
from .state import DEPTH, SHOWN, listed

_WRAPPERS = ("_orig_mod.", "_fsdp_wrapped_module.", "_checkpoint_wrapped_module.")
_AVERAGED = ("ema", "teacher", "averaged", "swa")  # preferred where several sets of weights fit
_COUNTER = "num_batches_tracked"  # of BatchNorm; no output depends on it
_KINDS = ("weight", "bias", "running_mean", "running_var")  # last words whose order matters


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
            + listed([c.name or "those without a prefix" for c in rivals])
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
            else [f"without a head: {listed(head)}"]
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
        for n in range(1, min(len(parts), DEPTH + 1)):
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
        parts.append(f"the network's {listed(missing)} {_is(missing)} not in the file")
    if shapes:
        parts.append(
            "of other shapes: "
            + listed([f"{k} {tuple(given[k].shape)} for {tuple(own[k].shape)}" for k in shapes])
        )
    if unknown:
        parts.append(f"the file's {listed(unknown)} {_is(unknown)} not in the network")
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
    if len(names) <= SHOWN:
        return ", ".join(names)
    counts: dict[str, int] = {}
    for name in names:
        top = name.split(".")[0]
        counts[top] = counts.get(top, 0) + 1
    return ", ".join(f"{top}.* ({n} tensors)" for top, n in counts.items())
