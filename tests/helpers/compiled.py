"""How many programs are compiled."""

from collections.abc import Iterator
from contextlib import contextmanager

import jax


@contextmanager
def compiled() -> Iterator[list[str]]:
    """Events of compilation inside the block, one a program, in a list that grows."""
    found: list[str] = []

    def listen(name: str, seconds: float, **rest) -> None:
        if name == "/jax/core/compile/backend_compile_duration":
            found.append(name)

    jax.monitoring.register_event_duration_secs_listener(listen)
    try:
        yield found
    finally:
        jax.monitoring.unregister_event_duration_listener(listen)
