"""A function over many values, by threads, with a progress bar."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from tqdm import tqdm

_THREADS = 8
_AT_ONCE = 64  # values of a block: a task for each value would take memory for millions of them

Value = TypeVar("Value")
Result = TypeVar("Result")


def by_threads(
    results_of: Callable[[Sequence[Value]], list[Result]],
    values: Sequence[Value],
    title: str,
    unit: str,
) -> list[Result]:
    """The results of all values, in their order; each call gets a block of the values.

    Args:
        results_of: a result for each value of a block; called from several threads.
        values: the values.
        title: of the bar, which is shown after 2 seconds.
        unit: of the bar.
    """
    blocks = [values[start : start + _AT_ONCE] for start in range(0, len(values), _AT_ONCE)]
    found: list[Result] = []
    bar = tqdm(total=len(values), desc=title, unit=unit, delay=2, leave=False)
    with ThreadPoolExecutor(_THREADS) as pool, bar:
        for results in pool.map(results_of, blocks):
            found += results
            bar.update(len(results))
    return found
