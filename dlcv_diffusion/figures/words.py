"""Facts as a reader of the report reads them: "DDIM, 50 steps, η = 0, seeds 0 to 3"."""

from collections.abc import Callable, Mapping
from itertools import pairwise
from pathlib import PurePath
from typing import Any

EQUALS = "\u00a0=\u00a0"  # no line ends there
SAMPLERS = {"ddpm": "DDPM", "ddim": "DDIM", "dpm_solver": "DPM-Solver++"}


def _plain(value: Any) -> Any:
    """Numbers, strings and lists of them; of an absolute path only the name."""
    if isinstance(value, PurePath):
        return value.name if value.is_absolute() else value.as_posix()
    value = value.tolist() if hasattr(value, "tolist") else value  # of numpy and torch
    if isinstance(value, set | frozenset):
        value = sorted(value, key=str)
    return [_plain(each) for each in value] if isinstance(value, list | tuple | range) else value


def _number(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def _series(values: Any) -> str:
    """Numbers or names as one says them: "3", "0 and 10", "0 to 9", "0, 2 and 5", "0, 5, …, 95"."""
    if not isinstance(values, list):
        return _number(values)
    words = [_series(value) for value in values]
    if len(words) > 2 and all(word.isdecimal() for word in words):
        numbers = [int(word) for word in words]
        step = numbers[1] - numbers[0]
        even = all(after - before == step for before, after in pairwise(numbers))
        if even and step == 1:
            return f"{words[0]} to {words[-1]}"
        if even and step and len(words) > 5:
            return f"{words[0]}, {words[1]}, …, {words[-1]}"
    return " and ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)


def _counted(word: str) -> Callable[[Any], str]:
    def say(values: Any) -> str:
        many = len(values) != 1 if isinstance(values, list) else not str(values).isdecimal()
        return f"{word}{'s' * many} {_series(values)}"

    return say


WORDS: Mapping[str, Callable[[Any], str]] = {
    "sampler": lambda name: SAMPLERS.get(name, str(name)),
    "steps": lambda count: f"{_series(count)} step{'s' * (count != 1)}",
    "w": lambda w: f"guidance weight w{EQUALS}{_series(w)}",
    "guidance scale": lambda scale: f"guidance scale {_number(scale)}",
    "guided where σ in": lambda ends: f"guided where σ is between {_number(ends[0])} and {_number(ends[1])}",
    "spacing": lambda name: f"{name} timesteps",
    "fast": lambda yes: "in bfloat16" if yes else "in float32",
    "signal leak": lambda yes: "noise with the mean colours of the data" if yes else "plain noise",
    "eta": lambda eta: f"η{EQUALS}{_series(eta)}",
    "seed": lambda seed: f"seed {_series(seed)}",
    "seeds": _counted("seed"),
    "noises": _counted("noise"),
    "seeds_of_z": lambda seeds: f"fresh noise from {_counted('seed')(seeds)}",
    "interpolation": lambda name: f"{name} between the noises",
    "weights": lambda name: f"model “{name}”",
    "model": lambda name: f"model “{name}”",
    "pictures": lambda name: f"pictures “{str(name).replace('_', ' ')}”",
    "template": lambda said: f"asked with {said}",
    "offset": lambda first: f"timesteps from {first} on",
    "final_alpha": lambda which: f"ending at the {which} ᾱ",
    "clip_x0": lambda most: f"x0 clipped to ±{_number(most)}",
    "save": lambda how: "each picture stretched to the whole range of greys" if how == "min_max" else f"saved by {how}",
}


def describe(facts: Mapping[str, Any]) -> str:
    r"""The facts of a figure as the end of its caption: any values that figures keep, known ones as phrases.

    >>> describe({"seeds": range(4), "sampler": "ddim", "steps": 50, "eta": 0.0, "weights": "faces"})
    'Seeds 0 to 3, DDIM, 50 steps, η\xa0=\xa00, model “faces”'
    """
    said = [_said(str(name), _plain(value)) for name, value in facts.items()]
    line = ", ".join(said)
    symbol = EQUALS in said[0] if said else True  # η and t are not H and T
    return line if symbol and len(line.split(EQUALS)[0].strip()) <= 2 else line[:1].upper() + line[1:]


def _said(name: str, value: Any) -> str:
    """A fact as a phrase; "name = value" where there is none, or where the value is not what it is for."""
    generic = f"{name.replace('_', ' ')}{EQUALS}{_series(value)}"
    if name not in WORDS or value is None or value == []:
        return generic
    try:
        return WORDS[name](value)
    except (TypeError, ValueError, LookupError):
        return generic
