"""Step-level continuous batching: many jobs in one model, each at its own timestep of its own schedule.

`add` lets a job in, `step` makes one model call for some of them, `abort` takes one out. One thread owns an engine.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from sfumato.core.errors import EngineDead, PermanentError
from sfumato.core.job import Priority
from sfumato.core.params import Params, Shape, evaluations
from sfumato.engine.backends import Backend, Prompt
from sfumato.engine.batcher import NOBODYS, Batcher, Whose
from sfumato.engine.caps import Fit
from sfumato.engine.embeddings import EmbeddingCache
from sfumato.engine.events import Event, Failed, Finished, Pixels, Progress, does_not_fit, ended, not_finite
from sfumato.engine.previews import Previewer
from sfumato.engine.sampler import COLUMNS, Table, table

__all__ = ["Engine", "Event", "Failed", "Finished", "Pixels", "Progress"]

PREVIEWS: Final = 8
"""Most previews of one job: enough to see it come, few enough to cost nothing."""


@dataclass(slots=True, eq=False)
class _Slot:
    """A job in the engine. Until its first call there is only what `add` was given; x is None."""

    key: str
    params: Params
    pixels: Pixels
    table: Table
    guided: bool
    step: int = 0
    x: Any = None
    x0_before: Any = None
    generator: Any = None
    embedding: Any = None
    negative: Any = None
    shown: bool = False

    @property
    def rows(self) -> int:
        return 2 if self.guided else 1

    @property
    def done(self) -> bool:
        return self.step == len(self.table)

    @property
    def shows_now(self) -> bool:
        """Whether the step just made is one that somebody wants to see."""
        return self.shown and not self.done and self.step % math.ceil(len(self.table) / PREVIEWS) == 0


class Engine:
    """Jobs go in with `add` and come out of `step` as events.

    Args:
        backend: the model.
        batch: most rows in one model call. More jobs may be in; urgent and old ones go first (see batcher.py).
        fits: what is known to fit into the device's memory at once, by shape (see caps.py).
    """

    def __init__(self, backend: Backend, batch: int, fits: Mapping[Shape, Fit] | None = None) -> None:
        self._backend, self._arrays = backend, backend.arrays
        self._schedule = backend.about.schedule
        self._batcher = Batcher(batch)
        self._pictures: dict[Shape, int] = {}
        for shape, fit in (fits or {}).items():
            self._batcher.lower(shape, fit.rows)
            self._pictures[shape] = fit.pictures
        self._embeddings = EmbeddingCache(backend)
        self._previewer = Previewer(backend)
        self._slots: dict[str, _Slot] = {}
        self._rows = 0

    @property
    def idle(self) -> bool:
        """No job is in."""
        return not self._slots

    @property
    def rows(self) -> int:
        """Rows of the last model call; 0 before the first."""
        return self._rows

    def add(
        self, key: str, params: Params, pixels: Pixels, priority: Priority = Priority.NORMAL, whose: Whose = NOBODYS
    ) -> None:
        """Let a job in. `pixels` are [params.height, params.width, 3]; owners ride in turn, by their weights.

        Raises:
            PermanentError: no schedule can be made of these parameters, or the pixels have another shape.
            ValueError: the key is in already.
        """
        wanted = (params.height, params.width, 3)
        if pixels.shape != wanted:
            raise PermanentError(f"the picture is {pixels.shape}, not {wanted} as its parameters say.")
        count = evaluations(params.num_inference_steps, params.strength, params.sampler)
        tokens = params.shape.pixels // self._backend.about.token_side**2
        schedule = table(params.sampler, self._schedule.shifted_for(tokens), params.num_inference_steps, count)
        guided = params.guidance_scale > 1 and not self._backend.about.embeds_guidance
        slot = _Slot(key, params, pixels, schedule, guided)
        self._batcher.add(key, params.shape, slot.rows, urgent=priority is Priority.HIGH, whose=whose)
        self._slots[key] = slot

    def show(self, key: str, on: bool) -> None:
        """From now on this job's Progress has a preview at some of its steps, or has none; no effect when not in."""
        if slot := self._slots.get(key):
            slot.shown = on

    def abort(self, key: str) -> bool:
        """Take a job out; it is in no later call and has no further event. False when it was not in."""
        self._slots.pop(key, None)
        return self._batcher.remove(key)

    def step(self) -> Sequence[Event]:
        """One model call for jobs of one shape; what happened to them.

        A job whose first call this is gets its prompt and picture encoded before, one whose last it was is decoded
        after. A call that fails is repeated in parts, so that only jobs that fail alone are Failed.

        Raises:
            EngineDead: no job can go on in this process.
        """
        call = self._batcher.next()
        if call is None:
            return ()
        slots = [self._slots[key] for key in call.keys]
        events: list[Event] = []
        fresh = [slot for slot in slots if slot.x is None]
        begun = self._surviving(self._begin, fresh, events, self._pictures.get(call.shape))
        ready = [slot for slot in slots if slot in begun or slot not in fresh]
        moved = self._surviving(self._advance, ready, events)
        events += [Progress(slot.key, slot.step, len(slot.table), self._preview(slot)) for slot in moved]
        done = [slot for slot in moved if slot.done]
        self._surviving(self._finish, done, events, self._pictures.get(call.shape))
        for event in events:
            if not isinstance(event, Progress):
                self.abort(event.key)
        return events

    def _surviving(
        self,
        work: Callable[[Sequence[_Slot]], Sequence[Event]],
        slots: Sequence[_Slot],
        events: list[Event],
        most: int | None = None,
    ) -> list[_Slot]:
        """Do `work` for `most` at a time; for whom it went well.

        What does not fit into memory is tried in halves from then on. What raises anything else is tried one by one,
        so that it ends nobody but who raises it alone.
        """
        waiting, size, well = list(slots), most or len(slots), list[_Slot]()
        while waiting:
            part, rest = waiting[:size], waiting[size:]
            try:
                # A number that is not finite ends its own job in _finish; nothing need warn of it on the way.
                with self._arrays.computing():
                    happened = work(part)
            except EngineDead:
                raise
            except Exception as error:
                if len(part) == 1:
                    events.append(Failed(part[0].key, _blame(error)))
                elif isinstance(error, MemoryError):
                    size, rest = _half(part), waiting
                else:
                    well += self._surviving(work, part, events, most=1)
            else:
                events.extend(happened)
                failed = {event.key for event in happened if isinstance(event, Failed)}
                well += [slot for slot in part if slot.key not in failed]
            waiting = rest
        return well

    @contextmanager
    def _fewer_pictures_when_full(self, slots: Sequence[_Slot]) -> Iterator[None]:
        """What did not fit once is not tried again: from then on so many pictures go in parts."""
        try:
            yield
        except MemoryError:
            self._pictures[slots[0].params.shape] = _half(slots)
            raise

    def _begin(self, slots: Sequence[_Slot]) -> Sequence[Event]:
        """Give new jobs their embeddings and first latents. Draws: the encoder's own, then the first noise."""
        prompts = [_prompts(slot) for slot in slots]
        embeddings = self._embeddings.of([prompt for pair in prompts for prompt in pair if prompt is not None])
        generators = [self._arrays.generator(slot.params.seed) for slot in slots]
        with self._fewer_pictures_when_full(slots):
            latents = self._backend.encode_images(np.stack([slot.pixels for slot in slots]), generators)
        for slot, (prompt, negative), generator, picture in zip(slots, prompts, generators, latents, strict=True):
            noise = self._noise(slot, generator)
            slot.generator, slot.x = generator, slot.table.signal * picture + slot.table.noise * noise
            slot.x0_before = picture  # weighs nothing in the first step
            slot.embedding, slot.negative = embeddings[prompt], None if negative is None else embeddings[negative]
        return ()

    def _advance(self, slots: Sequence[_Slot]) -> Sequence[Event]:
        """One step of each. Nothing of a slot changes before the model call has gone well."""
        rows = np.stack([slot.table.rows[slot.step] for slot in slots])
        s, _, p, q, a, b, c, d, e = self._arrays.columns(rows)
        x = self._arrays.stack([slot.x for slot in slots])
        before = self._arrays.stack([slot.x0_before for slot in slots])
        try:
            m = self._predict(slots, s * x, rows[:, COLUMNS.index("t")])
        except MemoryError:
            self._batcher.lower(slots[0].params.shape, self._rows // 2)
            raise
        x0 = p * x + q * m
        x = a * x + b * x0 + c * before
        clamp = self._schedule.clamp
        if clamp is not None:
            x = x + e * (x0.clip(-clamp, clamp) - x0)
        if rows[:, COLUMNS.index("d")].any():
            x = x + d * self._arrays.stack([self._step_noise(slot) for slot in slots])
        for slot, latents, estimate in zip(slots, x, x0, strict=True):
            slot.x, slot.x0_before, slot.step = latents, estimate, slot.step + 1
        return ()

    def _predict(self, slots: Sequence[_Slot], x: Any, t: npt.NDArray[np.float64]) -> Any:
        """The model's output [slots, c, h, w], with guidance where a job asks for it (a second row each)."""
        guided = [index for index, slot in enumerate(slots) if slot.guided]
        order = [*range(len(slots)), *guided]
        embeddings = [*(slot.embedding for slot in slots), *(slots[index].negative for index in guided)]
        scales = np.array([slot.params.guidance_scale for slot in slots])
        self._rows = len(order)
        # Rows are chosen by stacking views: an index list would be a copy to the device that the host waits for.
        rows = self._arrays.stack([x[index] for index in order]) if guided else x
        m = self._backend.predict(rows, t[order].astype(np.float32), embeddings, scales[order].astype(np.float32))
        if not guided:
            return m
        second = {index: len(slots) + place for place, index in enumerate(guided)}
        without = self._arrays.stack([m[second.get(index, index)] for index in range(len(slots))])
        (scale,) = self._arrays.columns(scales[:, None])
        return without + scale * (m[: len(slots)] - without)

    def _finish(self, slots: Sequence[_Slot]) -> Sequence[Event]:
        good = [slot for slot in slots if float(abs(slot.x).max()) < math.inf]
        events: list[Event] = [not_finite(slot.key) for slot in slots if slot not in good]
        if not good:
            return events
        with self._fewer_pictures_when_full(good):
            pictures = self._backend.decode(self._arrays.stack([slot.x for slot in good]))
        return [*events, *(ended(slot.key, picture) for slot, picture in zip(good, pictures, strict=True))]

    def _preview(self, slot: _Slot) -> Pixels | None:
        return self._previewer.of(slot.x0_before) if slot.shows_now else None

    def _noise(self, slot: _Slot, generator: Any) -> Any:
        about = self._backend.about
        height, width = slot.params.height // about.vae_factor, slot.params.width // about.vae_factor
        return self._arrays.normal(generator, about.latent_channels, height, width)

    def _step_noise(self, slot: _Slot) -> Any:
        """Zeros for a step without noise: what a job draws must not depend on its neighbours."""
        return self._noise(slot, slot.generator) if slot.table.rows[slot.step, COLUMNS.index("d")] else 0 * slot.x


def _prompts(slot: _Slot) -> tuple[Prompt, Prompt | None]:
    """What leads the job, and what it is led away from if it pays for a second row."""
    negative = Prompt(slot.params.negative_prompt, negative=True)
    return Prompt(slot.params.prompt), negative if slot.guided else None


def _half(slots: Sequence[_Slot]) -> int:
    return (len(slots) + 1) // 2


def _blame(error: Exception) -> Exception:
    """What a job that failed alone is told."""
    if isinstance(error, MemoryError):
        return does_not_fit()
    return error
