"""Documents of plain JSON that bear the digest of what they say."""

import hashlib
import json
from collections.abc import Mapping
from typing import Any

_DIGEST = "digest"


def sealed(document: Mapping[str, Any]) -> dict[str, Any]:
    """The document with the digest of all else that it says, whatever the order of its names."""
    return {**document, _DIGEST: _digest(document)}


def is_whole(document: Any) -> bool:
    """Whether this is what `sealed` gave, as it was or as JSON that was written and read."""
    if not isinstance(document, Mapping) or _DIGEST not in document:
        return False
    rest = {name: value for name, value in document.items() if name != _DIGEST}
    try:
        return document[_DIGEST] == _digest(rest)
    except (TypeError, ValueError):  # no JSON
        return False


def _digest(document: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(document, sort_keys=True).encode()).hexdigest()
