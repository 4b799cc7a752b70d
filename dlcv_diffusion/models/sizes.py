"""How large a network may say that it is: more is a mistake, and is refused before it is built."""

from typing import Annotated

from pydantic import Field

from ..schedule import MOST_TIMESTEPS

Channels = Annotated[int, Field(strict=True, ge=1, le=65_536)]
Width = Annotated[int, Field(strict=True, ge=8, le=8_192, multiple_of=8)]  # GroupNorm takes channels in eight groups
Side = Annotated[int, Field(strict=True, ge=1, le=4_096)]
Blocks = Annotated[int, Field(strict=True, ge=1, le=16)]
Classes = Annotated[int, Field(strict=True, ge=0, le=100_000)]
Timesteps = Annotated[int, Field(strict=True, ge=1, le=MOST_TIMESTEPS)]
Shape = tuple[Channels, Side, Side]
