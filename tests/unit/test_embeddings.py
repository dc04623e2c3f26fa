from collections.abc import Sequence

from sfumato.engine.backends.arrays import Latents
from sfumato.engine.backends.simulated import SimulatedBackend
from sfumato.engine.embeddings import EmbeddingCache


class Watched(SimulatedBackend):
    def __init__(self) -> None:
        super().__init__()
        self.asked: list[list[str]] = []

    def encode_prompts(self, prompts: Sequence[str]) -> Sequence[Latents]:
        self.asked.append(list(prompts))
        return super().encode_prompts(prompts)


def test_unknown_prompts_are_encoded_in_one_call_each_once() -> None:
    backend = Watched()
    cache = EmbeddingCache(backend)
    cache.of(["a"])

    found = cache.of(["b", "a", "c", "b"])

    assert backend.asked == [["a"], ["b", "c"]]
    assert set(found) == {"a", "b", "c"}


def test_longest_unused_prompt_is_forgotten_first() -> None:
    backend = Watched()
    cache = EmbeddingCache(backend, keep=2)
    for prompt in ("a", "b", "a", "c", "a", "b"):
        cache.of([prompt])

    assert backend.asked == [["a"], ["b"], ["c"], ["b"]]


def test_more_prompts_than_are_kept_still_all_come() -> None:
    assert set(EmbeddingCache(Watched(), keep=1).of(["a", "b", "c"])) == {"a", "b", "c"}
