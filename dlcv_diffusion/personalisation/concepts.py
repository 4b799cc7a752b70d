"""Learnt concepts on disk: ours, and what diffusers, AUTOMATIC1111, the course and the web have for textual inversion.

ours, diffusers, the course   {token: (n, d) or (d,)}, as .safetensors, or .bin and .pt of torch.save
AUTOMATIC1111, the authors'   {"string_to_param": {"*": (n, d)}, "name": token, …}, or {"emb_params": (n, d)}
Custom Diffusion, ours        one .safetensors: vectors, and what is added to keys and values, in half precision
"""

import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import torch
from pydantic import Field, StringConstraints
from safetensors import safe_open
from torch import Tensor, nn

from ..declared import declared, validated
from ..errors import check
from ..models.registry import FORMAT, OBJECT, short_hash, write_tensors
from ..models.text_to_image import TextToImage, as_text_to_image
from ..models.text_to_image.prompts import names_of
from ..reading import reading
from .network import cross_attention
from .tokens import add_token, check_new, check_vectors

VECTORS, DELTAS = "vectors/", "delta/"
NAMES = ("model.safetensors", "learned_embeds.safetensors", "learned_embeds.bin")
"""What a folder's concept may be called: ours, and diffusers'."""

NAMED = re.compile(r"(?:(<[^<>\s]+>)=)?(.*)", re.DOTALL)  # a word, or none, and its file
GIVE = "give a .safetensors, .bin or .pt file of textual inversion, or one that `dlcv personalise` wrote"
Token = Annotated[str, StringConstraints(min_length=1, max_length=200)]


@declared
class CustomHeader:
    """The header of a file of Custom Diffusion: its tokens, what it was learnt on, and the facts of its run."""

    tokens: Annotated[list[Token], Field(min_length=1)]
    base: dict[str, Any]
    facts: dict[str, Any] = Field(default_factory=dict)


@dataclass(frozen=True)
class Learnt:
    """What a file holds: by token the vectors, (n, d) float32; by name what is added to keys and values, or nothing."""

    vectors: dict[str, Tensor]
    deltas: dict[str, Tensor] = field(default_factory=dict)
    base: dict[str, Any] = field(default_factory=dict)
    facts: dict[str, Any] = field(default_factory=dict)


def base_facts(sd: TextToImage) -> dict[str, Any]:
    """What a model's changes belong to: its name, the width of its text, and a hash of all its keys and values."""
    half = short_hash(sd.unet.get_parameter(name).detach().half() for name in cross_attention(sd.unet))
    return {"name": sd.name, "width": sd.table.embedding_dim, "keys_and_values": half}


def write_embedding(path: str | Path, token: str, vectors: Tensor, facts: Mapping[str, Any] | None = None) -> None:
    """Write {token: (n, d)} float32 as safetensors, which `pipe.load_textual_inversion(path)` reads too.

    >>> write_embedding("runs/dog/model.safetensors", "<new1>", vectors)   # doctest: +SKIP
    """
    write_tensors(path, {token: vectors.detach().float()}, {"concept": dict(facts or {})})


def write_custom(
    path: str | Path,
    vectors: Mapping[str, Tensor],
    deltas: Mapping[str, Tensor],
    base: Mapping[str, Any],
    facts: Mapping[str, Any] | None = None,
) -> None:
    """Write vectors (n, d) by token in float32, and W − W0 of keys and values by name in half precision.

    Raises `UserError` for differences that half precision cannot hold.

    >>> write_custom("runs/two/model.safetensors", {"<new1>": v}, deltas, base_facts(sd))   # doctest: +SKIP
    """
    tensors = {VECTORS + token: rows.detach().float() for token, rows in vectors.items()}
    tensors |= {DELTAS + name: delta.detach().half() for name, delta in deltas.items()}
    finite = all(value.isfinite().all() for value in tensors.values())
    check(finite, f"what was learnt for '{path}' is not finite in half precision; use a lower learning rate")
    header = {"tokens": list(vectors), "base": dict(base), "facts": dict(facts or {})}
    write_tensors(path, tensors, {"custom_diffusion": header})


def read_concept_file(path: str | Path, token: str | None = None) -> Learnt:
    """What a file of one of the forms above, or the folder of a run, holds; nothing in it is run.

    - token: of several terms in a file of textual inversion, the one to read; of one, the name to give it instead of
      the file's own.

    Raises `UserError` for a file that is missing, damaged, empty, of another kind or of pickled code, and for several
    terms without `token`.

    >>> read_concept_file("learned_embeds.bin").vectors["<new1>"].shape   # doctest: +SKIP
    torch.Size([1, 768])
    """
    inside = [Path(path, name) for name in NAMES if os.path.isfile(Path(path, name))]
    path = inside[0] if inside else Path(path)
    check(not os.path.isdir(path), f"'{path}' holds no {' or '.join(NAMES)}; {GIVE}")
    if path.suffix == ".safetensors":
        found, header = _safetensors(path)
        if "custom_diffusion" in header:
            kept = f"'{path}' is of Custom Diffusion, whose tokens keep their names; leave out the other name"
            check(token is None, kept)
            return _custom(path, found, validated(CustomHeader, header["custom_diffusion"], f"'{path}'"))
        other = f"'{path}' is a checkpoint or another file of dlcv_diffusion; give the run's model.safetensors"
        check(not header or "concept" in header, other)
    else:
        found, header = _pickled(path), {}
    terms = _terms(path, found)
    if token is None or len(terms) > 1:
        said = f"'{path}' holds several terms: {', '.join(map(str, terms))}"
        check(len(terms) == 1 or token in terms, f"{said:.300}; choose one of them, as in '{next(iter(terms))}={path}'")
    rows = terms[token] if token in terms else next(iter(terms.values()))
    sound = isinstance(rows, Tensor) and rows.is_floating_point() and rows.ndim in (1, 2) and rows.numel()
    name = token or str(next(iter(terms)))
    check(sound, f"'{path}' holds no vector (d,) or vectors (n, d) for '{name:.60}'; {GIVE}")
    facts = validated(dict[str, Any], header.get("concept", {}), f"'{path}'")
    return Learnt({name: rows.detach().float().reshape(-1, rows.shape[-1])}, facts=facts)


def _safetensors(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    with reading(path, "is not a whole safetensors file", GIVE), safe_open(path, framework="pt") as file:
        found = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 – not a dict
        header = OBJECT.validate_json((file.metadata() or {}).get("dlcv_diffusion", "{}"))
    newer = f"'{path}' was written by a newer dlcv_diffusion (format {header.get('format')!s:.9}); upgrade to read it"
    check(header.get("format", FORMAT) in range(1, FORMAT + 1), newer)
    return found, header


def _pickled(path: Path) -> Any:
    """What `torch.save` wrote, if it is tensors and plain Python; the authors' files keep theirs in a ParameterDict."""
    code = "is damaged or of another kind, or holds pickled code, which is never run"
    with reading(path, code, GIVE), torch.serialization.safe_globals([nn.ParameterDict, set]):
        os.stat(path)
        return torch.load(path, map_location="cpu", weights_only=True)


def _terms(path: Path, found: Any) -> dict[str, Any]:
    """Vectors by term, whatever the form. Raises `UserError` where there are none, or of two text encoders at once."""
    check(isinstance(found, Mapping) and found, f"'{path}' holds no {{token: vector}}; {GIVE}")
    check("clip_g" not in found, f"'{path}' is for Stable Diffusion XL, which has two text encoders; {GIVE}")
    if "emb_params" in found:
        return {path.stem: found["emb_params"]}
    if "string_to_param" not in found:
        return dict(found)
    terms = found["string_to_param"]
    check(isinstance(terms, Mapping | nn.ParameterDict) and len(terms), f"'{path}' holds no vectors; {GIVE}")
    terms = dict(terms.items())
    name = found.get("name")
    return {name: next(iter(terms.values()))} if len(terms) == 1 and isinstance(name, str) and name else terms


def _custom(path: Path, found: Mapping[str, Tensor], header: CustomHeader) -> Learnt:
    vectors = {token: found.get(VECTORS + token) for token in header.tokens}
    deltas = {name.removeprefix(DELTAS): value for name, value in found.items() if name.startswith(DELTAS)}
    whole = deltas and all(rows is not None and rows.ndim == 2 for rows in vectors.values())
    whole = whole and all(value.is_floating_point() and value.isfinite().all() for value in found.values())
    check(whole, f"'{path}' lacks vectors, keys or values, or they are not finite; train it again")
    return Learnt({token: rows.float() for token, rows in vectors.items()}, deltas, header.base, header.facts)


def load_concepts(model: Any, *paths: str | Path) -> list[str]:
    """Teach a model the concepts of these files; returns their tokens, which prompts may use from now on.

    The pipeline changes: rows are added to its lookup table, and of Custom Diffusion also W ← W0 + ΔW in its keys and
    values. What one file after another adds to the same weights is not what was learnt, so a second file of Custom
    Diffusion is refused: `merge` makes one of two.

    - paths: files, or folders of runs; "<word>=FILE" is a file whose one word is called so, or one word of its several.

    Raises `UserError`, and changes nothing, for a file that cannot be read or does not fit the model, and for a token
    that the model knows already.

    >>> load_concepts(pipeline, "runs/dog", "<new2>=style.bin")   # doctest: +SKIP
    ['<new1>', '<new2>']
    """
    sd = as_text_to_image(model)
    learnt = {path: _named(path) for path in map(str, paths)}
    check_apart(learnt.values(), "load one of them by another name, as in '<other>=FILE'")
    custom = [path for path, found in learnt.items() if found.deltas]
    said = f"'{''.join(map(str, custom[:1]))}' and '{''.join(map(str, custom[1:2]))}' both change keys and values"
    check(len(custom) < 2, f"{said}; join them by `dlcv personalise merge`")
    for path, found in learnt.items():
        for name, rows in found.vectors.items():
            check_new(sd.tokenizer, name, len(rows))
            check_vectors(sd, name, rows)
        if found.deltas:
            check_base(sd, found, path)
    for found in learnt.values():
        for name, rows in found.vectors.items():
            add_token(sd, name, rows)
        _add(sd.unet, found.deltas)
    return [name for found in learnt.values() for name in found.vectors]


def _named(path: str) -> Learnt:
    token, file = NAMED.fullmatch(path).groups()  # type: ignore[union-attr]  # it matches all
    return read_concept_file(file, token)


def check_apart(learnt: Iterable[Learnt], advice: str) -> None:
    """Raise `UserError` where two of the files name a vector alike; capital letters make no difference."""
    tokens = [(token, len(rows)) for found in learnt for token, rows in found.vectors.items()]
    names = [name.lower() for token, count in tokens for name in names_of(token, count + 1)]
    twice = next((name for name in names if names.count(name) > 1), None)
    check(twice is None, f"two of the files hold the token '{twice}'; {advice}")


def check_base(sd: TextToImage, found: Learnt, path: str | Path) -> None:
    """Raise `UserError` unless keys and values are those that the file's differences were learnt on."""
    shapes = {name: sd.unet.get_parameter(name).shape for name in cross_attention(sd.unet)}
    fits = shapes == {name: delta.shape for name, delta in found.deltas.items()}
    here, name = base_facts(sd), found.base.get("name") or "another model"
    what = f"the keys and values are not those of '{name!s:.60}', on which '{path}' was learnt"
    same = fits and here["keys_and_values"] == found.base.get("keys_and_values")
    check(same, f"{what}; load it into that model, fresh and in float32")


def _add(unet: nn.Module, deltas: Mapping[str, Tensor]) -> None:
    """W ← W0 + ΔW, in new memory: a network that trains may share the old one, see `frozen_copy`."""
    for name, delta in deltas.items():
        weight = unet.get_parameter(name)
        weight.data = weight.data + delta.to(weight)
