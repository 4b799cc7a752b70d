"""A cache that forgets: of all that was put in, what was used last."""

from collections import OrderedDict
from typing import Any


class Recent(OrderedDict):
    """A dictionary of at most `most` entries; those that were not used for longest go first.

    Whoever must have an entry keeps what he got: it may be gone after the next one is put in.

    >>> cache = Recent(2)
    >>> cache["a"], cache["b"] = 1, 2
    >>> used = cache["a"]
    >>> cache["c"] = 3
    >>> list(cache)
    ['a', 'c']
    """

    def __init__(self, most: int) -> None:
        super().__init__()
        self.most = max(1, most)

    def __getitem__(self, key: Any) -> Any:
        self.move_to_end(key)
        return super().__getitem__(key)

    def __setitem__(self, key: Any, value: Any) -> None:
        super().__setitem__(key, value)
        self.move_to_end(key)
        if len(self) > self.most:
            self.popitem(last=False)
