"""A progress bar that appears only when the work takes more than a second or two."""

import time


class Bar:
    """Count work done; show it once two seconds have passed.

    **Arguments:** `task`: what is being done; `unit`: of the work; `shown`: whether to show
    anything; `total`: the work there is, None if it is not known.
    """

    def __init__(self, task: str, unit: str, shown: bool, total: int | None = None):
        self.task, self.unit, self.shown, self.total = task, unit, shown, total
        self.bar, self.done, self.begin = None, 0, time.monotonic()

    def __enter__(self):
        return self

    def __call__(self, amount: int, note: str = "") -> None:
        self.done += amount
        if self.shown and self.bar is None and time.monotonic() - self.begin > 2:
            from tqdm.auto import tqdm

            self.bar = tqdm(total=self.total, unit=self.unit, unit_scale=True, desc=self.task)
            amount = self.done
        if self.bar is not None:
            if note:
                self.bar.set_postfix_str(note, refresh=False)
            self.bar.update(amount)

    def __exit__(self, *error):
        if self.bar is not None:
            self.bar.close()
