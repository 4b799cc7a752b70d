"""Weights that lie on another machine: from this one's cache, or fetched, or said at once that neither is possible."""

import os
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ...errors import check
from ..foreign import foreign

PATIENCE = 4.0
"""Seconds after which a hub that does not answer is taken for one that cannot be reached."""


def hub_answers() -> bool:
    """Whether the hub of huggingface_hub can be reached now; false at once where that library is told to stay offline.

    >>> hub_answers()   # doctest: +SKIP
    False
    """
    from huggingface_hub import constants

    if constants.HF_HUB_OFFLINE or os.environ.get("HF_HUB_OFFLINE", "0") not in ("0", ""):
        return False
    return answers(constants.ENDPOINT)


def answers(url: str) -> bool:
    """Whether anything answers there within `PATIENCE`, through the proxies of the environment."""
    from urllib.error import HTTPError
    from urllib.request import Request, urlopen

    found: list[bool] = []

    def ask() -> None:
        try:
            urlopen(Request(url, method="HEAD"), timeout=PATIENCE).close()
            found.append(True)
        except HTTPError:
            found.append(True)  # a refusal is an answer too
        except Exception:  # no name, no route, a proxy that refuses, a certificate that is not known
            found.append(False)

    asking = threading.Thread(target=ask, daemon=True)  # looking up a name knows no time limit
    asking.start()
    asking.join(PATIENCE)
    return bool(found and found[0])


def fetched(name: str, tag: str, tagged: Mapping[str, Any]) -> Path:
    """The file of a tag of open_clip's, by the model's name and its own: from the cache, else downloaded.

    Raises `UserError`, at once, where it is not in the cache and there is no network: it says what to download, and to
    keep the tag in the file's name, by which its activation and normalisation are known.
    """
    from open_clip.pretrained import download_pretrained

    cached = cached_file(tagged)
    if cached is not None:
        return cached
    repository, url = tagged.get("hf_hub", "").rstrip("/"), tagged.get("url", "")
    where = f"the .safetensors file of '{repository}' from the Hugging Face hub" if repository else f"'{url}'"
    suffix = ".safetensors" if repository else Path(url).suffix
    saved = f"save it as '{tag}{suffix}', and give that: --pretrained {tag}{suffix} (pretrained=…)"
    advice = f"download {where} where there is a network, {saved}"
    check(hub_answers() if repository else answers(url), f"no weights of '{name}' here, and no network; {advice}")
    with foreign(f"the weights of '{name}' could not be fetched", advice):
        return Path(download_pretrained(dict(tagged)))


def cached_file(tagged: Mapping[str, Any]) -> Path | None:
    """What open_clip, or OpenAI's own code, downloaded before."""
    from huggingface_hub import try_to_load_from_cache
    from open_clip.constants import HF_SAFE_WEIGHTS_NAME, HF_WEIGHTS_NAME

    repository, file = os.path.split(tagged.get("hf_hub", ""))
    if "file" in tagged:
        return Path(tagged["file"])
    for wanted in (file,) if file else (HF_SAFE_WEIGHTS_NAME, HF_WEIGHTS_NAME):
        found = try_to_load_from_cache(repository, wanted) if repository else None
        if isinstance(found, str):
            return Path(found)
    of_url = Path("~/.cache/clip").expanduser() / os.path.basename(tagged.get("url", ""))
    return of_url if of_url.is_file() else None
