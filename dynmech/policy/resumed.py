"""A conversation gone on with from its record, in any process."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from dynmech import files
from dynmech.errors import InvalidArgument, describe
from dynmech.errors import shown as told
from dynmech.policy.conversation import Conversation, start_conversation

if TYPE_CHECKING:
    from dynmech.policy.priced import AbstractPriced

_KEYS = {"policy", "theta", "signals", "turns", "digest"}
_TURN = {"shown", "action", "signals", "values"}


def resume_conversation(policy: AbstractPriced, record: Any) -> Conversation:
    """See `EfficientPolicy.resume`."""
    call = "EfficientPolicy.resume(record=...)"
    if not _recorded(record):
        raise InvalidArgument(describe(call, "be what Conversation.record() gave", told(record)))
    if record["policy"] != policy.fingerprint:
        must, do = "be of this policy", "resume it under the policy that it was held with"
        raise InvalidArgument(describe(call, must, "one of another policy", do))
    if not files.is_whole(record):
        must, do = "be as Conversation.record() gave it", "keep records as they are"
        raise InvalidArgument(describe(call, must, "one that was changed since", do))
    chat = start_conversation(policy, record["theta"], record["signals"], None)
    n = policy.env.products
    for turn in record["turns"]:
        shown = turn["shown"]
        shown = tuple(shown) if isinstance(shown, list) else shown
        same = shown == chat.recommendation
        chat = chat.step(
            turn["action"],
            turn["signals"] if turn["action"] == n + 1 else None,
            turn["values"],
            shown=None if same else shown,
        )
    return chat


def _recorded(record: Any) -> bool:
    """Whether this has the keys of a record, and lists where it has lists."""
    if not isinstance(record, Mapping) or set(record) != _KEYS:
        return False
    lists = [record[name] for name in ("theta", "signals", "turns")]
    return all(isinstance(x, list | tuple) for x in lists) and all(
        isinstance(turn, Mapping) and set(turn) == _TURN for turn in record["turns"]
    )
