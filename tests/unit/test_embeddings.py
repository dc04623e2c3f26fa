from collections.abc import Sequence

from sfumato.engine.backends import Prompt
from sfumato.engine.backends.arrays import Latents
from sfumato.engine.backends.simulated import SimulatedBackend
from sfumato.engine.embeddings import EmbeddingCache


class Watched(SimulatedBackend):
    def __init__(self) -> None:
        super().__init__()
        self.asked: list[list[str]] = []

    def encode_prompts(self, prompts: Sequence[Prompt]) -> Sequence[Latents]:
        self.asked.append([prompt.text for prompt in prompts])
        return super().encode_prompts(prompts)


def prompts(*texts: str) -> list[Prompt]:
    return [Prompt(text) for text in texts]


def test_unknown_prompts_are_encoded_in_one_call_each_once() -> None:
    backend = Watched()
    cache = EmbeddingCache(backend)
    cache.of(prompts("a"))

    found = cache.of(prompts("b", "a", "c", "b"))

    assert backend.asked == [["a"], ["b", "c"]]
    assert set(found) == set(prompts("a", "b", "c"))


def test_longest_unused_prompt_is_forgotten_first() -> None:
    backend = Watched()
    cache = EmbeddingCache(backend, keep=2)
    for prompt in ("a", "b", "a", "c", "a", "b"):
        cache.of(prompts(prompt))

    assert backend.asked == [["a"], ["b"], ["c"], ["b"]]


def test_more_prompts_than_are_kept_still_all_come() -> None:
    wanted = prompts("a", "b", "c")

    assert set(EmbeddingCache(Watched(), keep=1).of(wanted)) == set(wanted)


def test_a_negative_prompt_is_not_taken_for_the_same_text_as_a_prompt() -> None:
    backend = Watched()

    EmbeddingCache(backend).of([Prompt("a"), Prompt("a", negative=True)])

    assert backend.asked == [["a", "a"]]
