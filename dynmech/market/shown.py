"""What is on the screen, as the parts of a market are told.

A control is a display, `shown` (K,): products in order, n for an empty place. A part whose method
has a parameter called `shown` is given that; one written for a single product is given the product
(n for none), and can be asked of displays of one place only.
"""

import functools
import inspect
from collections.abc import Callable
from typing import Any, Protocol, runtime_checkable

import jax.numpy as jnp
import numpy as np

from dynmech._types import Index, Numbers
from dynmech.errors import InvalidArgument, describe


@runtime_checkable
class Behaves(Protocol):
    """What an action rule is asked here."""

    def step(self, memory: Any, shown: Any, products: int, /) -> Any: ...

    def probabilities(self, memory: Any, shown: Any, utilities: Any, /) -> Any: ...


@runtime_checkable
class Answers(Protocol):
    """What feedback is asked here."""

    def readers(self, shown: Any, /) -> Any: ...

    def read(self, memory: Any, shown: Any, period: Any, utilities: Any, /) -> Any: ...

    def likelihood(self, memory: Any, shown: Any, period: Any, utilities: Any, /) -> Any: ...


@runtime_checkable
class AsksAgain(Protocol):
    """What a rule's chance of a query is asked here."""

    def probability(self, shown: Any, utilities: Any, remembered: Any, /) -> Any: ...


def told(call: Callable[..., Any], shown: Any) -> Any:
    """`shown` as a method takes it: every place of the display, or the one product.

    **Raises:** `InvalidArgument` for several places and a method written for one.
    """
    places = jnp.atleast_1d(jnp.asarray(shown))
    if reads_displays(call):
        return places
    require_displays(call, len(places))
    return places[0]


def require_displays(call: Callable[..., Any], size: int) -> None:
    """Raise unless a method can be told what is on a screen of so many places."""
    if size == 1 or reads_displays(call):
        return
    must = "be told all that is on the screen where several products are shown at once"
    got = f"{type(getattr(call, '__self__', call)).__name__}.{call.__name__}, for a single product"
    do = "name its parameter `shown`, products (K,) in order, n for an empty place"
    raise InvalidArgument(describe("RecommendationMDP(displays=...)", must, got, do))


def reads_displays(call: Callable[..., Any]) -> bool:
    """Whether a method is written for displays of several products."""
    return _named(getattr(call, "__func__", call))


@functools.cache
def _named(function: Callable[..., Any]) -> bool:
    return "shown" in inspect.signature(function).parameters


def stepped(rule: Behaves, memory: Numbers, shown: Index, products: int):
    """A rule's memory after a display."""
    return rule.step(memory, told(rule.step, shown), products)


def acts(rule: Behaves, memory: Numbers, shown: Index, utilities: Numbers):
    """Chances of every action after a display; `memory` is that after it."""
    return rule.probabilities(memory, told(rule.probabilities, shown), utilities)


def acts_for_ever(rule: Behaves, memory: Numbers, shown: Index, utilities: Numbers, times: int):
    """Chances of every end of a display that stays for as long as she asks again; none asks.

        sum_k q_1 ... q_{k-1} p_k,    p_k, q_k: chances of ending and of a query the k-th time

    **Arguments:** `memory`: after the display; `times`: after how many more displays of it nothing
    changes any more.
    """
    total, going = 0.0, 1.0
    for _ in range(times):
        law = acts(rule, memory, shown, utilities)
        total, going = total + going * law[:-1], going * law[-1]
        memory = stepped(rule, memory, shown, len(utilities))
    law = acts(rule, memory, shown, utilities)[:-1]
    ends = law.sum(axis=0)
    never = jnp.zeros_like(law).at[-1].set(1.0)  # at a taste that nobody has
    law = jnp.where(ends > 0, law / jnp.where(ends > 0, ends, 1.0), never)
    total = total + going * law
    return jnp.concatenate([total, jnp.zeros_like(total[:1])])


def answers(
    feedback: Answers, memory: Numbers | None, shown: Index, period: Index, utilities: Numbers
):
    """Law of what is heard after a display and a query, (m, Z), numbered as by `Heard`."""
    if feedback.readers(np.zeros((1, jnp.atleast_1d(shown).shape[0]), np.int64)) is None:
        return answers_of_all(feedback, memory, shown, period, utilities)
    law = feedback.read(memory, told(feedback.read, shown), period, utilities)
    law = law.reshape(len(law), -1)
    return jnp.concatenate([law, jnp.zeros_like(law[:, :1])], axis=1)


def answers_of_all(
    feedback: Answers, memory: Numbers | None, shown: Index, period: Index, utilities: Numbers
):
    """Joint law of the symbols of all parties, the last one fastest."""
    return feedback.likelihood(memory, told(feedback.likelihood, shown), period, utilities)


def alone(shown: Any) -> Any:
    """A display as signals of settlement take it: the product, or all places where several are."""
    return shown[..., 0] if shown.shape[-1] == 1 else shown


def asks(query: AsksAgain, shown: Index, utilities: Numbers, remembered: Numbers):
    """Chance of a query after a display."""
    return query.probability(told(query.probability, shown), utilities, remembered)
