"""Work that takes long: a bar that shows it, and interrupts that leave what it found whole."""

import contextlib
import signal
import threading
import time
from collections.abc import Callable, Generator
from types import FrameType


class Bar:
    """Count work done; show it once two seconds have passed.

    **Arguments:** `task`: what is being done; `unit`: of the work; `shown`: whether to show
    anything; `total`: the work there is, None if it is not known.
    """

    def __init__(self, task: str, unit: str, shown: bool, total: int | None = None):
        self.task, self.unit, self.shown, self.total = task, unit, shown, total
        self.bar, self.done, self.begin = None, 0, time.monotonic()
        self.lock = threading.Lock()

    def __enter__(self):
        return self

    def __call__(self, amount: int, note: str = "") -> None:
        with self.lock:  # devices work side by side
            self.done += amount
            if self.shown and self.bar is None and time.monotonic() - self.begin > 2:
                from tqdm.auto import tqdm

                self.bar = tqdm(total=self.total, unit=self.unit, unit_scale=True, desc=self.task)
                amount = self.done
            if self.bar is not None:
                if note:
                    self.bar.set_postfix_str(note, refresh=False)
                self.bar.update(amount)

    def __exit__(self, *error: object):
        if self.bar is not None:
            self.bar.close()


class Interrupts:
    """Pass SIGINT on only where what was found is whole; a second one at once, anywhere.

    **Arguments:** `before`: the handler that they are passed on to.
    """

    def __init__(self, before: Callable[[int, FrameType | None], object]):
        self.before = before
        self.open = self.noted = self.passed = False

    def handle(self, number: int, frame: FrameType | None) -> None:
        if self.open or self.noted:
            self.noted = self.passed = True
            self.before(number, frame)
        self.noted = True

    def check(self) -> None:
        """Pass on an interrupt that waits, once: as a rule this raises `KeyboardInterrupt`."""
        if self.noted and not self.passed:
            self.passed = True
            self.before(signal.SIGINT, None)

    @contextlib.contextmanager
    def now(self, when: bool = True) -> Generator[None, None, None]:
        """Pass them on at once here, for work that is dropped as a whole; only if `when`."""
        try:
            self.open = when
            if when:
                self.check()
            yield
        finally:
            self.open = False


@contextlib.contextmanager
def deferred() -> Generator[Interrupts, None, None]:
    """Let SIGINT wait: for `check`, for `now`, or, where neither comes, for nothing.

    Python calls handlers in the main thread alone: elsewhere this changes nothing. Where SIGINT
    is deferred already, that goes on.
    """
    before = signal.getsignal(signal.SIGINT)
    owner = getattr(before, "__self__", None)
    if isinstance(owner, Interrupts):
        yield owner
        return
    main = threading.current_thread() is threading.main_thread()
    if not main or not callable(before):
        yield Interrupts(signal.default_int_handler)
        return
    interrupts = Interrupts(before)
    signal.signal(signal.SIGINT, interrupts.handle)
    try:
        yield interrupts
    finally:
        signal.signal(signal.SIGINT, before)
