"""Workers that can't say why they don't come up, because something kills them: told by their hosts. Pure."""

from collections.abc import Iterable, Mapping
from typing import Final

from sfumato.core.scaling import Ends, Pool

__all__ = ["Deaths"]

TOO_MANY: Final = 3


class Deaths:
    """Counts, for each model, how many workers ended since one was heard of last, or since this first looked."""

    def __init__(self) -> None:
        self._before: dict[str, int] | None = None

    def troubles(self, pools: Iterable[Pool], heard: Iterable[str]) -> Mapping[str, str]:
        """Model (slug) → how its workers end without ever having worked. `heard`: models with a living worker."""
        ends: dict[str, Ends] = {}
        for pool in pools:
            for model, told in pool.ends.items():
                ends[model] = told.after(ends.get(model))
        counts = {model: told.count for model, told in ends.items()}
        before = counts if self._before is None else self._before
        # A host that ends what it ran forgets how often that had ended.
        self._before = {model: min(before.get(model, 0), count) for model, count in counts.items()}
        self._before |= {model: counts.get(model, 0) for model in heard}
        since = {model: count - self._before[model] for model, count in counts.items()}
        return {
            model: f"its worker {ends[model].how}, {times} times since one was heard of"
            for model, times in since.items()
            if times >= TOO_MANY
        }
