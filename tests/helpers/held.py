"""A conversation as a server holds it, drawn by number: recommended, charged, chosen."""

from functools import cache
from pathlib import Path

import numpy as np

import dynmech as dm


def hold(mechanism, number):
    """Hold the conversation of this number, and begin four beside it."""
    policy, rng = mechanism.policy, np.random.default_rng([9, number])
    chat, seen = policy.start(profile=int(rng.integers(len(policy.profiles)))), []
    while not chat.ended:
        seen.append((chat.recommendation, chat.value))
        shown = int(rng.integers(3)) if rng.random() < 0.4 else chat.recommendation
        said = [int(rng.integers(3)), 0, 0, 0] if rng.random() < 0.6 else None
        again = rng.random() < 0.7
        chat = chat.step(4 if again else shown, said if again else None, shown=shown)
    rating = 0.3 if chat.turns[-1].action < 3 else None
    many = policy.start_many(np.arange(4)).step(np.full(4, 4), rng.integers(3, size=4))
    return seen, mechanism.settle(chat, rating).transfer.tolist(), many.control.tolist()


@cache
def _read(path: Path):
    return dm.DynamicTeamMechanism.load(path)


def hold_from(path: Path, number):
    """The same with a mechanism that this process reads from a file, once."""
    return hold(_read(path), number)
