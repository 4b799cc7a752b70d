"""Settings and JSON that are checked by their declaration: pydantic's types, and its errors as one sentence."""

from collections.abc import Mapping
from inspect import signature
from typing import Any, TypeVar, dataclass_transform

from pydantic import ConfigDict, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass

from .errors import UserError

T = TypeVar("T")


@dataclass_transform(frozen_default=True)
def declared(cls: type[T]) -> type[T]:
    """A frozen dataclass whose fields are checked against their types; `UserError` for what does not fit.

    `dataclasses.replace`, `asdict` and `fields` work on it. Numbers must be finite; unknown names are refused. A
    `ValueError` from a pydantic validator of the class becomes the sentence as it stands.

    >>> from typing import Annotated
    >>> from pydantic import Field
    >>> @declared
    ... class Steps:
    ...     count: Annotated[int, Field(ge=1)] = 20
    >>> Steps(count=0)
    Traceback (most recent call last):
    dlcv_diffusion.errors.UserError: count is 0; it should be greater than or equal to 1
    """
    made = dataclass(frozen=True, config=ConfigDict(extra="forbid", allow_inf_nan=False))(cls)
    init, names = made.__init__, signature(made)

    def __init__(self: Any, /, *args: Any, **kwargs: Any) -> None:
        try:
            if args:  # by their names, so that a sentence about them can say which
                kwargs = names.bind_partial(*args, **kwargs).arguments
            init(self, **kwargs)
        except ValidationError as error:
            raise UserError(sentence(error)) from None

    made.__init__ = __init__
    return made


def validated(kind: type[T], value: Any, source: str) -> T:
    """`value`, plain JSON, as a `kind`, any type that pydantic knows; else a `UserError` that names `source`.

    >>> validated(dict[str, int], {"a": [1]}, "labels.json")
    Traceback (most recent call last):
    dlcv_diffusion.errors.UserError: labels.json: a is [1]; it should be a valid integer
    """
    try:
        return TypeAdapter(kind).validate_python(value)
    except ValidationError as error:
        raise UserError(f"{source}: {sentence(error)}") from None
    except RecursionError:
        raise UserError(f"{source}: it is nested too deeply; write the file again") from None


def sentence(error: ValidationError) -> str:
    """The first of pydantic's errors as "steps is 0; it should be greater than or equal to 1"."""
    first = error.errors(include_url=False)[0]
    where = ".".join(str(part) for part in first["loc"]) or "it"
    said = first["msg"].removeprefix("Value error, ")
    if first["type"] == "value_error":
        return said
    if first["type"] in ("missing", "unexpected_keyword_argument", "extra_forbidden"):
        return f"{where}: {said[0].lower()}{said[1:]}"
    given = "an object" if isinstance(first["input"], Mapping) else repr(first["input"])
    return f"{where} is {given if len(given) < 80 else given[:77] + '…'}; {said.replace('Input should', 'it should')}"
