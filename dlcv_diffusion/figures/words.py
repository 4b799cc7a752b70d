"""Facts as a reader of the report reads them: "DDIM, 50 steps, η = 0, seeds 0 to 3"."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import PurePath
from typing import Any

EQUALS = "\u00a0=\u00a0"  # no line ends there
SAMPLERS = {"ddpm": "DDPM", "ddim": "DDIM", "dpm_solver": "DPM-Solver++"}


def _number(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def _series(values: Any) -> str:
    """Numbers or names as one says them: "3", "0 and 10", "0 to 9", "0, 2 and 5"."""
    values = values.tolist() if hasattr(values, "tolist") else values  # of numpy and torch
    values = sorted(values) if isinstance(values, set | frozenset) else values
    if isinstance(values, str) or not isinstance(values, Sequence | range):
        return _number(values)
    values = [_number(value) for value in values]
    if len(values) > 2 and all(value.isdecimal() for value in values):
        numbers = [int(value) for value in values]
        if numbers == list(range(numbers[0], numbers[0] + len(numbers))):
            return f"{values[0]} to {values[-1]}"
    return " and ".join([", ".join(values[:-1]), values[-1]] if len(values) > 1 else values)


def _counted(word: str) -> Callable[[Any], str]:
    def say(values: Any) -> str:
        values = values.tolist() if hasattr(values, "tolist") else values
        many = not isinstance(values, str | int) and len(values) > 1
        return f"{word}{'s' * many} {_series(values)}"

    return say


WORDS: Mapping[str, Callable[[Any], str]] = {
    "sampler": lambda name: SAMPLERS.get(name, str(name)),
    "steps": lambda count: f"{_series(count)} step{'s' * (count != 1)}",
    "w": lambda w: f"guidance weight w{EQUALS}{_series(w)}",
    "guidance scale": lambda scale: f"guidance scale {_number(scale)}",
    "guided where σ in": lambda ends: f"guided where σ is between {_number(ends[0])} and {_number(ends[1])}",
    "spacing": lambda name: f"{name} timesteps",
    "fast": lambda _: "in bfloat16",
    "signal leak": lambda _: "noise with the mean colours of the data",
    "eta": lambda eta: f"η{EQUALS}{_series(eta)}",
    "seed": lambda seed: f"seed {_series(seed)}",
    "seeds": _counted("seed"),
    "noises": _counted("noise"),
    "seeds_of_z": lambda seeds: f"fresh noise from {_counted('seed')(seeds)}",
    "interpolation": lambda name: f"{name} between the noises",
    "weights": lambda name: f"model “{name}”",
    "model": lambda name: f"model “{name}”",
    "pictures": lambda name: f"pictures “{name.replace('_', ' ')}”",
    "template": lambda said: f"asked with {said}",
    "offset": lambda first: f"timesteps from {first} on",
    "final_alpha": lambda which: f"ending at the {which} ᾱ",
    "clip_x0": lambda most: f"x0 clipped to ±{_number(most)}",
    "save": lambda how: "each picture stretched to the whole range of greys" if how == "min_max" else f"saved by {how}",
}


def describe(facts: Mapping[str, Any]) -> str:
    r"""The facts of a figure as the end of its caption.

    >>> describe({"seeds": range(4), "sampler": "ddim", "steps": 50, "eta": 0.0, "weights": "faces"})
    'Seeds 0 to 3, DDIM, 50 steps, η\xa0=\xa00, model “faces”'
    """
    facts = {
        name: value.name if isinstance(value, PurePath) and value.is_absolute() else value
        for name, value in facts.items()
    }
    said = [
        WORDS.get(name, lambda value, name=name: f"{name.replace('_', ' ')}{EQUALS}{_series(value)}") for name in facts
    ]
    line = ", ".join(say(value) for say, value in zip(said, facts.values(), strict=True))
    return line[:1].upper() + line[1:]
