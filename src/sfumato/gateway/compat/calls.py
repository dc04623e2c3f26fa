"""Calls that wait: what the protocols have in common that answer with pictures and not with links.

Each picture is an ordinary job, taken in by the one reception; a call is no more than who waits for them.
"""

import asyncio
import contextlib
import logging
import os
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from fastapi import Request, Response

from sfumato.core.errors import InvalidRequest, NotFound, TransientError
from sfumato.core.events import new_row
from sfumato.core.job import Job, Outcome, model_slug, preview_key, uuid7
from sfumato.gateway.asked import Asked, idempotency_key, parse
from sfumato.gateway.callers import caller_of
from sfumato.gateway.context import Gateway
from sfumato.gateway.intake import Came, Given, Uploaded
from sfumato.gateway.jobs import no_picture
from sfumato.gateway.pictures import PictureHeader
from sfumato.gateway.problems import Refusal
from sfumato.gateway.reception import Reception
from sfumato.gateway.uploads import declared_length, read_body

__all__ = ["GONE", "MOST_PICTURES", "Call", "Calls", "Gone", "Preview", "Wish"]

MOST_PICTURES: Final = 16
"""Of one call: all of them are held in memory for its answer."""
JSON_OVERHEAD_BYTES: Final = 64 * 1024
LOOK_S: Final = 0.25
SIGN_OF_LIFE_S: Final = 15.0
WATCH_FOR_S: Final = 15.0
log = logging.getLogger(__name__)


class Gone(Exception):
    """Who asked has left."""


GONE: Final = Response(status_code=499)
"""What is answered then: nobody reads it. 499 is nginx's number for this."""


@dataclass(frozen=True, slots=True)
class Wish:
    """One picture that a call asks for: what is to be done, in the gateway's own words, and with what."""

    asked: Asked
    picture: Given | Uploaded
    header: PictureHeader


@dataclass(frozen=True, slots=True)
class Call:
    """The jobs of one call, in the order asked for. `keyed`: the same call, made again, finds the same jobs."""

    jobs: Sequence[Job]
    keyed: bool


@dataclass(frozen=True, slots=True)
class Preview:
    """What a job looked like after `step` of `steps`, as a JPEG; an empty one says only that it is still under way."""

    step: int
    steps: int
    data: bytes = b""


class Calls:
    """Makes and follows the calls of one protocol."""

    def __init__(self, gateway: Gateway, reception: Reception, protocol: str) -> None:
        self._gateway, self._reception, self._protocol = gateway, reception, protocol
        self._ending: set[asyncio.Task[None]] = set()

    async def room(self, request: Request) -> None:
        """See that the caller may have one job more, before anything is read. Raises Refusal (quota-exceeded)."""
        await self._reception.room(caller_of(request), self._key(request, 0))

    async def body(self, request: Request) -> bytes:
        """A JSON body; read it while `in_flight` holds `length`. Raises Refusal."""
        limits = self._gateway.limits
        return await read_body(request.stream(), self._most_bytes, limits.stall_s)

    def length(self, request: Request) -> int:
        """How many bytes a JSON body says to have. Raises Refusal (body-too-large)."""
        return declared_length(request.headers.get("content-length"), self._most_bytes)

    @property
    def _most_bytes(self) -> int:
        return self._gateway.limits.max_bytes * 4 // 3 + JSON_OVERHEAD_BYTES

    def model_name(self, asked: str | None) -> str:
        """The model that is meant: the one asked for, or the first there is."""
        return asked or next(iter(self._gateway.registry.names()), "")

    def asked(self, fields: Mapping[str, Any]) -> Asked:
        """What is asked for, in the gateway's own words; None stands for what was left out.

        Raises:
            Refusal, UnknownModel, BrokenModel: as `parse`.
        """
        given = {name: value for name, value in fields.items() if value is not None}
        return parse(Asked, given, self._gateway.registry)

    async def take(self, request: Request, wishes: Sequence[Wish], began: float) -> Call:
        """Take all the jobs in, or none of them.

        Raises:
            Refusal, InvalidRequest, TransientError: as `Reception.accept`.
        """
        came, keyed = Came(self._protocol, self._new_id()), self._key(request, 0) is not None
        if not keyed and len(wishes) > 1:
            await self._reception.room_for(request, [(each.asked, each.picture, each.header) for each in wishes])
        taken, asked_for = list[Job](), dict[str, str]()
        try:
            for number, wish in enumerate(wishes):
                given, key, job_id = (wish.picture, wish.header), self._key(request, number), self._new_id()
                asked_for[job_id] = wish.asked.model_name
                accepted = await self._reception.accept(
                    request, wish.asked, key, *given, began, came=came, job_id=job_id
                )
                taken.append(accepted.job)
        except (Refusal, InvalidRequest):
            await self.give_up(Call(taken, keyed))
            raise
        except BaseException:
            # The last one too: it is not known whether it was taken.
            await asyncio.shield(self._leave({} if keyed else asked_for))
            raise
        return Call(taken, keyed)

    def _new_id(self) -> str:
        return uuid7(self._gateway.clock(), os.urandom(10))

    def _key(self, request: Request, number: int) -> str | None:
        """The idempotency key of one picture of a call, None where the call has none."""
        key = idempotency_key(request.headers.get("idempotency-key"))
        return None if key is None else f"{self._protocol}:{key}:{number}"

    async def ended(self, request: Request, call: Call, *, all_of_them: bool = True) -> Sequence[Outcome]:
        """How the call's jobs have ended, in their order, once all have; what was not to be waited for is given up.

        `all_of_them`: the first that has no picture is the end of the others too.

        Raises:
            Gone: who asked has left meanwhile.
            Refusal: one has no picture, or it took too long.
            TransientError: this gateway stops.
        """
        gateway = self._gateway
        left = asyncio.create_task(_left(request))
        waits = {
            asyncio.create_task(gateway.live.ended(job.id, gateway.settings.call_wait_s, gateway.outcomes)): number
            for number, job in enumerate(call.jobs)
        }
        ends: dict[int, Outcome] = {}
        try:
            while len(ends) < len(waits):
                running = [wait for wait, number in waits.items() if number not in ends]
                done, _ = await asyncio.wait({*running, left}, return_when=asyncio.FIRST_COMPLETED)
                for wait in done & waits.keys():
                    ends[waits[wait]] = self._end(wait.result(), all_of_them=all_of_them)
                if left in done and len(ends) < len(waits):
                    raise Gone
        except BaseException:
            await self.give_up(call)
            raise
        finally:
            for task in (left, *waits):
                task.cancel()
            await asyncio.gather(left, *waits, return_exceptions=True)
        return [ends[number] for number in range(len(ends))]

    def _end(self, outcome: Outcome | None, *, all_of_them: bool) -> Outcome:
        if outcome is None:
            if self._gateway.stopping.is_set():
                raise TransientError("This gateway stops; send it again.")
            raise Refusal(
                "took-too-long", f"No picture within {self._gateway.settings.call_wait_s:g} s; send it later."
            )
        if all_of_them and outcome.picture is None:
            raise no_picture(outcome)
        return outcome

    async def give_up(self, call: Call) -> None:
        """Cancel what nobody waits for any more, unless the same call may be made again and find it."""
        await asyncio.shield(self.leave(call))

    def leave(self, call: Call) -> "asyncio.Task[None]":
        """`give_up` by itself: a stream's own task is canceled when its reader leaves, and can wait for nothing."""
        return self._leave({} if call.keyed else {job.id: job.model for job in call.jobs})

    def _leave(self, models: Mapping[str, str]) -> "asyncio.Task[None]":
        task = asyncio.create_task(self._cancel(models))
        self._ending.add(task)
        task.add_done_callback(self._ending.discard)
        return task

    async def _cancel(self, models: Mapping[str, str]) -> None:
        """End the jobs with these ids, each of its model."""
        for job_id, model in models.items():
            try:
                await self._gateway.intake.cancel(job_id, self._gateway.clock(), model)
            except TransientError as error:
                log.warning("Job %s goes on although nobody waits for it: %s", job_id, error.detail)

    async def picture(self, outcome: Outcome) -> bytes:
        """A picture that was made. Raises Refusal when there is none, or it was deleted since."""
        if outcome.picture is None:
            raise no_picture(outcome)
        try:
            return await self._gateway.blobs.get(outcome.picture.key)
        except NotFound:
            raise Refusal("picture-gone", "The job succeeded and its picture was deleted since.") from None

    async def follow(self, job: Job, previews: int) -> AsyncIterator[Preview | Outcome]:
        """A job until its end: at most `previews` of it, evenly apart, a sign of life now and then, and its outcome.

        Raises:
            Refusal: it took too long.
            TransientError: this gateway stops, or a store is away.
        """
        gateway, now = self._gateway, asyncio.get_running_loop().time
        shown, deadline, told_at = 0, now() + gateway.settings.call_wait_s, now()
        with gateway.live.followers.follower(job.id) as follower:
            while (outcome := await gateway.outcomes.get(job.id)) is None:
                if now() > deadline or gateway.stopping.is_set():
                    self._end(None, all_of_them=True)
                if shown < previews and (preview := await self._preview(job, (shown + 1) / (previews + 1))):
                    shown += 1
                    told_at = now()
                    yield preview
                elif now() > told_at + SIGN_OF_LIFE_S:
                    told_at = now()
                    yield Preview(0, 0)
                await follower.news(LOOK_S)
        yield outcome

    async def _preview(self, job: Job, share: float) -> Preview | None:
        """The newest preview of the job, once that much of it is done."""
        gateway = self._gateway
        with contextlib.suppress(NotFound, TransientError):
            await gateway.intake.watch(job, gateway.clock(), WATCH_FOR_S)
            row = gateway.live.row(job.id) or new_row(job)
            running = gateway.live.progress(model_slug(job.model), row)
            if running is not None and running.preview and running.preview >= share * running.steps:
                data = await gateway.blobs.get(preview_key(job.id))
                return Preview(running.preview, running.steps, data)
        return None


async def _left(request: Request) -> None:
    """Returns when who asked has gone."""
    while (await request.receive())["type"] != "http.disconnect":
        pass
