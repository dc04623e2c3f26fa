"""What a careful client knows by itself: what it asked for, each 202 it was given, and each picture it was shown."""

import hashlib
import io
import json
import threading
import urllib.request
from collections import Counter
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field

from PIL import Image

from tests.service import Answer, answered, picture_request
from tests.support import poll

__all__ = ["Ledger"]

CLIENTS = 8
ANSWERS_WITHIN_S = 20.0


@dataclass
class _Entry:
    """One request. `shown` are the pictures seen behind its link, by their digests; `gone` what a 410 said."""

    number: int
    job_id: str = ""
    link: str = ""
    shown: set[str] = field(default_factory=set)
    gone: str = ""

    @property
    def ended(self) -> bool:
        return bool(self.shown or self.gone)


class Ledger:
    """Requests numbered from 0, each with its own key, picture and prompt; safe to be used by several threads."""

    def __init__(self, url: str, model: str, name: str) -> None:
        self._url, self._model, self._name = url, model, name
        self._lock = threading.Lock()
        self.entries: dict[int, _Entry] = {}
        self.answers: Counter[str] = Counter()

    def ask(self, number: int) -> Answer:
        """Submit this request once; its key and picture are the same each time. Raises OSError without an answer."""
        request = picture_request(
            self._url,
            _picture(number),
            key=f"{self._name} {number}",
            model_name=self._model,
            prompt=f"{self._name} {number}",
        )
        answer = answered(request, ANSWERS_WITHIN_S)
        self._note(answer)
        if answer.status == 202:
            told = json.loads(answer.body)
            with self._lock:
                entry = self.entries.setdefault(number, _Entry(number))
            assert entry.job_id in ("", told["id"]), "one key is one job"
            entry.job_id, entry.link = told["id"], told["result_url"]
        return answer

    def submit(self, number: int, within_s: float = 60.0) -> None:
        """The client's own rule: no answer, or 503, means unknown, so try again with the same key."""

        def accepted() -> bool:
            with suppress(OSError):
                return self.ask(number).status == 202
            self._count("none")
            return False

        poll(accepted, within_s=within_s, every_s=0.2)

    def submit_all(self, numbers: Iterable[int], pace: "threading.Event | None" = None, pace_s: float = 0.0) -> None:
        """Submit these by several clients at once; each rests `pace_s` after each of its own, until `pace` is set."""

        def one(number: int) -> None:
            self.submit(number)
            if pace is not None:
                pace.wait(pace_s)

        with ThreadPoolExecutor(CLIENTS) as clients:
            list(clients.map(one, numbers))

    def look(self, entry: _Entry) -> bool:
        """Ask its link, and write down what it shows; whether it has ended."""
        with suppress(OSError):
            answer = answered(urllib.request.Request(entry.link), ANSWERS_WITHIN_S)
            self._note(answer)
            if answer.status == 200:
                with Image.open(io.BytesIO(answer.body)) as picture:
                    picture.load()
                entry.shown.add(hashlib.sha256(answer.body).hexdigest())
            elif answer.status == 410:
                entry.gone = json.loads(answer.body)["type"]
        return entry.ended

    def settle(self, within_s: float) -> None:
        """Follow every link until its job has ended. AssertionError: one did not."""
        open_ones = [entry for entry in self.entries.values() if not entry.ended]

        def all_ended() -> bool:
            with ThreadPoolExecutor(CLIENTS) as clients:
                list(clients.map(self.look, open_ones))
            open_ones[:] = [entry for entry in open_ones if not entry.ended]
            return not open_ones

        poll(all_ended, within_s=within_s, every_s=0.3)

    def look_again(self) -> None:
        """Ask every link once more: who was shown a picture before must be shown the same."""
        with ThreadPoolExecutor(CLIENTS) as clients:
            list(clients.map(self.look, self.entries.values()))

    def assert_all_succeeded(self, jobs: int) -> None:
        """Each request is one job with one picture, which nobody else was given."""
        entries: Sequence[_Entry] = list(self.entries.values())
        assert len(entries) == jobs
        assert len({entry.job_id for entry in entries}) == jobs
        assert [entry for entry in entries if entry.gone] == []
        assert [entry for entry in entries if len(entry.shown) != 1] == []
        assert len({digest for entry in entries for digest in entry.shown}) == jobs

    def assert_polite(self) -> None:
        """Every answer was as documented: no 5xx but a 503 that says when to come back."""
        odd = [told for told in self.answers if told not in ("200", "202", "410", "503 Retry-After", "none")]
        assert odd == [], self.answers

    def _note(self, answer: Answer) -> None:
        again = " Retry-After" if answer.status == 503 and "Retry-After" in answer.headers else ""
        self._count(f"{answer.status}{again}")

    def _count(self, told: str) -> None:
        with self._lock:
            self.answers[told] += 1


def _picture(number: int) -> bytes:
    stream = io.BytesIO()
    Image.new("RGB", (48, 32), (number % 256, number // 256, 90)).save(stream, "PNG")
    return stream.getvalue()
