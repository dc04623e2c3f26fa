"""Calls that wait: what the protocols have in common that answer with pictures and not with links.

Each picture is an ordinary job, taken in by the one reception; a call is no more than who waits for them.
"""

import asyncio
import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from fastapi import Request, Response

from sfumato.core.errors import InvalidRequest, NotFound, SfumatoError, TransientError
from sfumato.core.job import Job, Outcome, uuid7
from sfumato.gateway.asked import Asked, idempotency_key, parse
from sfumato.gateway.callers import Caller, caller_of
from sfumato.gateway.context import Gateway
from sfumato.gateway.intake import Came, Given, Uploaded
from sfumato.gateway.jobs import no_picture
from sfumato.gateway.pictures import PictureHeader
from sfumato.gateway.problems import Refusal
from sfumato.gateway.reception import Reception
from sfumato.gateway.uploads import declared_length, read_body

__all__ = ["GONE", "MOST_PICTURES", "Call", "Calls", "Gone", "Wish", "in_vain"]

MOST_PICTURES: Final = 16
"""Of one call: all of them are held in memory for its answer."""
AWAY_S: Final = 0.5
"""How soon a store that does not answer is asked again."""
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
        return await read_body(request.stream(), limits.max_json_bytes, limits.stall_s)

    def length(self, request: Request) -> int:
        """How many bytes a JSON body says to have. Raises Refusal (body-too-large)."""
        return declared_length(request.headers.get("content-length"), self._gateway.limits.max_json_bytes)

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
        self._check_size(caller_of(request), len(wishes))
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

    @staticmethod
    def _check_size(caller: Caller, pictures: int) -> None:
        """See that the key may have so many jobs at all: to send the call again would never help."""
        most = caller.key.quota.in_flight if caller.key else None
        if most is not None and pictures > most:
            detail = f"The call asks for {pictures} pictures; this key may have {most} jobs at once. Ask for fewer."
            raise Refusal("invalid-parameters", detail)

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
        left = asyncio.create_task(_left(request))
        waits = {asyncio.create_task(self._outcome(job)): number for number, job in enumerate(call.jobs)}
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

    async def _outcome(self, job: Job) -> Outcome | None:
        """How the job has ended; None when it has not in time. A store that is away meanwhile is waited for too."""
        gateway, now = self._gateway, asyncio.get_running_loop().time
        deadline = now() + gateway.settings.call_wait_s
        while True:
            try:
                return await gateway.live.ended(job.id, max(0.0, deadline - now()), gateway.outcomes)
            except TransientError:
                if gateway.stopping.is_set() or now() > deadline:
                    raise
            await asyncio.sleep(AWAY_S)

    def _end(self, outcome: Outcome | None, *, all_of_them: bool) -> Outcome:
        if outcome is None:
            raise in_vain(self._gateway)
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


def in_vain(gateway: Gateway) -> SfumatoError:
    """Why a call that waited is answered without its pictures."""
    if gateway.stopping.is_set():
        return TransientError("This gateway stops; send it again.")
    waited_s = gateway.settings.call_wait_s
    return Refusal("took-too-long", f"No picture within {waited_s:g} s; send it later.")


async def _left(request: Request) -> None:
    """Returns when who asked has gone."""
    while (await request.receive())["type"] != "http.disconnect":
        pass
