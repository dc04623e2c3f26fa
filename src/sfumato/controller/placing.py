"""On which host each worker runs: where it runs already, else where there is most room. Pure."""

from collections.abc import Mapping, Sequence

from sfumato.core.scaling import Pool

__all__ = ["placed"]


def placed(wanted: Mapping[str, int], pools: Sequence[Pool]) -> Mapping[str, Mapping[str, int]]:
    """Pool → model → how many workers, with as few moves as possible; what fits nowhere is left out.

    Models come in the order of `wanted`: with too few places the first get theirs.
    """
    result: dict[str, dict[str, int]] = {pool.name: {} for pool in pools}
    free = {pool.name: pool.places for pool in pools}
    left = dict(wanted)
    for pool in pools:
        for model in wanted:
            stays = min(pool.placed.get(model, 0), left[model], free[pool.name])
            if stays:
                result[pool.name][model] = stays
                free[pool.name] -= stays
                left[model] -= stays
    for model, missing in left.items():
        for _ in range(missing):
            # Spread: a host that dies takes few of a model with it.
            name = max(free, key=lambda name: (free[name], -result[name].get(model, 0)), default=None)
            if name is None or free[name] <= 0:
                break
            result[name][model] = result[name].get(model, 0) + 1
            free[name] -= 1
    return {name: models for name, models in result.items() if models}
