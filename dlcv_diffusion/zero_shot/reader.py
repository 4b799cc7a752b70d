"""Any words against any picture: what `zero_shot_explorer` computes."""

from collections.abc import Generator, Sequence
from typing import TypeVar

import torch
from PIL import Image
from torch import Tensor

from ..errors import UserError, check
from ..evaluation.encoder import finite
from ..models.clip import Clip
from ..recent import Recent
from .classify import state_of
from .pictures import Pictures
from .words import bare

KEPT = 1024
"""Texts, and pictures, whose features are kept."""

AT_ONCE = 8
"""Texts encoded before somebody else may have a turn."""

STILL, LOOKED_AT = 3, 30

Result = TypeVar("Result")
Steps = Generator[None, None, Result]
"""What computes in steps: it yields between them, and returns its result."""


class Reader:
    """A CLIP, pictures, and one more picture that somebody brought; what was encoded last is kept.

    A picture is named by its row, the one that was brought by the key that `take` returned.

    >>> reader = Reader(clip, pictures)                                            # doctest: +SKIP
    >>> picture, texts = finished(reader.features(0, ["a fox", "an owl"]))         # doctest: +SKIP
    >>> picture.shape, texts.shape                                                 # doctest: +SKIP
    (torch.Size([1, 128]), torch.Size([2, 128]))
    """

    def __init__(self, clip: Clip, pictures: Pictures) -> None:
        self.clip, self.pictures = clip, pictures
        self._texts, self._pictures = Recent(KEPT), Recent(KEPT)  # features (D,) by text or picture, and state
        self._brought: dict[str, tuple[str, Image.Image]] = {}
        self._count = 0

    def take(self, name: str, picture: Image.Image) -> str:
        """Take a picture in, in place of the one before; its key is like none before."""
        self._count += 1
        key = f"brought {self._count}"
        for kept in [kept for kept in self._pictures if kept[0] in self._brought]:
            del self._pictures[kept]
        self._brought = {key: (name, picture)}
        return key

    def read(self, picture: int | str) -> tuple[str, Image.Image]:
        """A picture's name, and itself. Raises `UserError` for one that cannot be read."""
        if isinstance(picture, str):
            return self._brought[picture]
        return self.label(picture), self.pictures.read(picture)

    def label(self, row: int) -> str:
        return f"{self.pictures.files[row]}: {self._class(row)}"

    def true_word(self, picture: int | str, words: Sequence[str]) -> str | None:
        """The word that names the picture's class, where it is known and there."""
        if isinstance(picture, str):
            return None
        return next((word for word in words if bare(word) == bare(self._class(picture))), None)

    def features(self, picture: int | str, texts: Sequence[str]) -> Steps[tuple[Tensor, Tensor]]:
        """Features of a picture (1, D) and of texts (K, D), of length 1, float64, on the CPU; in steps.

        Raises `UserError` for a picture that cannot be read, a text that is too long, and weights that give NaN.
        """
        state = state_of(self.clip)
        embeddings = yield from self.embeddings(texts, state)
        if (picture, state) not in self._pictures:
            found = self.clip.encode_images([self.read(picture)[1]])
            self._pictures[picture, state] = finite(found, "CLIP's features")[0].cpu()
        return self._pictures[picture, state][None].double(), embeddings

    def embeddings(self, texts: Sequence[str], state: tuple | None = None) -> Steps[Tensor]:
        """Features of texts alone, (K, D); those that are not kept are encoded, some at a time."""
        state = state_of(self.clip) if state is None else state
        found = {text: self._texts[text, state] for text in texts if (text, state) in self._texts}
        new = [text for text in dict.fromkeys(texts) if text not in found]
        for first in range(0, len(new), AT_ONCE):
            some = new[first : first + AT_ONCE]
            encoded = finite(self.clip.encode_texts(some), "CLIP's features").cpu()
            for text, feature in zip(some, encoded, strict=True):
                found[text] = self._texts[text, state] = feature
            yield
        return torch.stack([found[text] for text in texts]).double()

    def for_still(self, words: Sequence[str], texts: Sequence[str]) -> tuple[list[int], Tensor, list[str]]:
        """Rows of pictures that show words at work, their cosines (N, K), and the files that cannot be read.

        They are the first three; where the words are right in all of these, the third gives way to the first of the
        next pictures, up to the thirtieth, in which they are wrong.

        Raises `UserError` where none can be read.
        """
        chosen, wrong, refused = [], False, {}
        for row in range(min(len(self.pictures), LOOKED_AT)):
            try:
                feature, embeddings = finished(self.features(row, texts))
            except UserError as error:
                refused[self.pictures.files[row]] = str(error)
                continue
            cosines, true = (feature @ embeddings.T)[0], self.true_word(row, words)
            misread = true is not None and words[int(cosines.argmax())] != true
            if len(chosen) < STILL:
                chosen.append((row, cosines))
            elif misread:
                chosen[-1] = row, cosines
            wrong = wrong or misread
            if wrong and len(chosen) == STILL:
                break
        check(chosen, f"none of the first {len(refused)} pictures can be read: {next(iter(refused.values()), '')}")
        rows, cosines = zip(*chosen, strict=True)
        return list(rows), torch.stack(cosines), list(refused)

    def _class(self, row: int) -> str:
        return self.pictures.classes[int(self.pictures.labels[row])]


def finished(steps: Steps[Result]) -> Result:
    """All the steps at once.

    >>> def count():
    ...     yield
    ...     return 2
    >>> finished(count())
    2
    """
    while True:
        try:
            next(steps)
        except StopIteration as end:
            return end.value
