"""A service in memory that keeps Sfumato's HTTP contract, for tests of what speaks to it."""

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

import httpx

__all__ = ["FakeService", "job_json", "problem"]

BASE = "http://service"
_JOB = re.compile(r"/api/jobs/([0-9a-f-]{36})(/result|/cancel|/retry)?$")


def job_json(job_id: str, base: str = BASE, **changes: Any) -> dict[str, Any]:
    """A job as the service tells it; queued unless `changes` say otherwise."""
    links = {f"{name}_url": f"{base}/api/jobs/{job_id}/{name}?token=t" for name in ("result", "events")}
    plain = {"id": job_id, "status": "queued", "status_url": f"{base}/api/jobs/{job_id}?token=t", **links}
    more = {"model_name": "restyle", "priority": "normal", "prompt": "", "created_at": "2026-01-02T03:04:05.006Z"}
    return plain | more | changes


def problem(status: int, slug: str, *, headers: Mapping[str, str] | None = None, **members: Any) -> httpx.Response:
    """A refusal (RFC 9457)."""
    body = {"type": f"urn:sfumato:problem:{slug}", "title": slug, "status": status, **members}
    return httpx.Response(status, json=body, headers={"Content-Type": "application/problem+json", **(headers or {})})


class FakeHooks:
    """The routes of webhooks; `kept` are the deliveries, newest first."""

    def __init__(self) -> None:
        self.made: dict[str, dict[str, Any]] = {}
        self.kept: list[dict[str, Any]] = []

    def deliver(self, delivery_id: str, **changes: Any) -> None:
        """Keep one more delivery, given up unless told otherwise."""
        plain = {"job_id": "0190b0f0-0000-7000-8000-000000000000", "event": "succeeded", "endpoint": "job"}
        about = {"url": "https://example.com/hook", "at": "2026-01-02T03:04:05.006Z", "state": "given_up"}
        went = {"attempts": 10, "next_attempt_at": None, "last_status": 500, "last_error": "it answered 500"}
        self.kept.insert(0, {"id": delivery_id, **plain, **about, **went, **changes})

    def __call__(self, request: httpx.Request) -> httpx.Response:
        kind, *rest = request.url.path.removeprefix("/api/webhooks/").split("/")
        if kind == "secrets":
            return httpx.Response(200, json={"secrets": ["whsec_mine", "whsec_before"]})
        if kind == "deliveries":
            return self._redeliver(rest[0]) if rest else self._list(request)
        return self._about(request, rest[0]) if rest else self._endpoints(request)

    def _endpoints(self, request: httpx.Request) -> httpx.Response:
        if request.method == "POST":
            return self._add(json.loads(request.content))
        return httpx.Response(200, json={"endpoints": list(self.made.values())})

    def _about(self, request: httpx.Request, endpoint_id: str) -> httpx.Response:
        if endpoint_id not in self.made:
            return problem(404, "not-found", detail="No endpoint has this id, or it was removed.")
        if request.method == "DELETE":
            del self.made[endpoint_id]
            return httpx.Response(204)
        overlap_s = json.loads(request.content)["overlap_s"]
        return httpx.Response(200, json={"id": endpoint_id, "secret": "whsec_new", "overlap_s": overlap_s})

    def _add(self, asked: dict[str, Any]) -> httpx.Response:
        if "10.0.0" in asked["url"]:
            return problem(422, "bad-webhook", detail="The webhook's address is refused.")
        plain = {"created_at": "2026-01-02T03:04:05.006Z", "disabled": None}
        events = asked["events"] or ["started", "succeeded", "failed", "canceled", "retried"]
        made = {"id": f"ep_{len(self.made)}", "url": asked["url"], "events": events, **plain}
        self.made[made["id"]] = made
        return httpx.Response(201, json={**made, "secret": "whsec_first"})

    def _list(self, request: httpx.Request) -> httpx.Response:
        asked = request.url.params
        found = [
            each
            for each in self.kept
            if asked.get("state", each["state"]) == each["state"]
            and asked.get("job_id", each["job_id"]) == each["job_id"]
        ]
        begin = int(asked.get("cursor", 0))
        end = begin + int(asked["limit"])
        following = str(end) if end < len(found) else None
        return httpx.Response(200, json={"deliveries": found[begin:end], "next": following})

    def _redeliver(self, delivery_id: str) -> httpx.Response:
        found = next((each for each in self.kept if each["id"] == delivery_id), None)
        if found is None:
            return problem(404, "not-found", detail="No delivery has this id, or it was removed.")
        found |= {"state": "pending", "attempts": 0}
        return httpx.Response(202, json=found)


class FakeService:
    """A callable for httpx.MockTransport. A job moves one state at each look, and its result is `picture`.

    A picture whose bytes contain `broken` ends failed, one that contains `no picture` is refused. Links begin with
    `base`.
    """

    def __init__(self, picture: bytes = b"result", models: Sequence[str] = ("restyle",)) -> None:
        self.picture, self.models = picture, tuple(models)
        self.base = BASE
        self.jobs: dict[str, dict[str, Any]] = {}
        self.requests: list[httpx.Request] = []
        self.hooks = FakeHooks()
        self.warnings: list[str] = []
        self._doomed: set[str] = set()
        self._keys: dict[str, str] = {}

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(request)
        path = request.url.path
        if path == "/api/models":
            return httpx.Response(200, json={"models": [self._model(name) for name in self.models]})
        if path == "/api/diffusion":
            return self._accept(request)
        if path == "/api/jobs":
            return self._list(request)
        if path.startswith("/api/webhooks/"):
            return self.hooks(request)
        found = _JOB.match(path)
        if found is None or found[1] not in self.jobs:
            return problem(404, "not-found", detail="There is no such job.")
        return self._about(request, self.jobs[found[1]], found[2] or "")

    def _model(self, name: str) -> dict[str, Any]:
        backlog = {"waiting": 0, "running": 0, "oldest_s": None, "eta_s": None}
        return {"name": name, "state": "ready", "summary": "restyles", "rules": {}, "backlog": backlog, "workers": 1}

    def _accept(self, request: httpx.Request) -> httpx.Response:
        asked = dict(request.url.params)
        if asked["model_name"] not in self.models:
            return problem(404, "unknown-model", known_models=list(self.models))
        if b"no picture" in request.content:
            return problem(415, "unsupported-picture", detail="This is no picture.")
        key = request.headers["Idempotency-Key"]
        job_id = self._keys.setdefault(key, f"0190b0f0-0000-7000-8000-{len(self._keys):012d}")
        self.jobs.setdefault(
            job_id,
            job_json(
                job_id,
                self.base,
                **{name: asked[name] for name in ("model_name", "prompt", "priority") if name in asked},
            ),
        )
        if b"broken" in request.content:
            self._doomed.add(job_id)
        links = ("id", "status", "result_url", "status_url", "events_url")
        told = {name: self.jobs[job_id][name] for name in links}
        return httpx.Response(202, json=told | ({"warnings": self.warnings} if self.warnings else {}))

    def _list(self, request: httpx.Request) -> httpx.Response:
        asked = request.url.params
        jobs = [job for job in self.jobs.values() if asked.get("status", job["status"]) == job["status"]]
        begin = int(asked.get("cursor", 0))
        end = begin + int(asked["limit"])
        count = {"count": len(jobs)} if asked.get("count") == "true" else {}
        return httpx.Response(
            200, json={"jobs": jobs[begin:end], "next": str(end) if end < len(jobs) else None, **count}
        )

    def _about(self, request: httpx.Request, job: dict[str, Any], part: str) -> httpx.Response:
        if request.method == "DELETE":
            del self.jobs[job["id"]]
            return httpx.Response(204)
        if part == "/cancel":
            return self._cancel(job)
        if part == "/result":
            return self._result(job)
        if part == "/retry":
            return self._retry(request, job)
        seen = json.loads(json.dumps(job))
        self._move(job)
        return httpx.Response(200, json=seen)

    def _cancel(self, job: dict[str, Any]) -> httpx.Response:
        if job["status"] in ("succeeded", "failed"):
            return problem(409, "already-ended", detail=f"The job ended {job['status']}.")
        job["status"] = "canceled"
        return httpx.Response(200, json=job)

    def _retry(self, request: httpx.Request, job: dict[str, Any]) -> httpx.Response:
        if job["status"] in ("queued", "running"):
            return problem(409, "job-not-ended", detail="Only a job that has ended can be run again.")
        key = request.headers["Idempotency-Key"]
        again = self._keys.setdefault(key, f"0190b0f0-0000-7000-8000-{len(self._keys):012d}")
        self.jobs.setdefault(again, job_json(again, self.base, model_name=job["model_name"], prompt=job["prompt"]))
        return httpx.Response(202, json=self.jobs[again])

    def _result(self, job: dict[str, Any]) -> httpx.Response:
        while job["status"] in ("queued", "running"):  # the answer is held back until there is an end
            self._move(job)
        if job["status"] != "succeeded":
            return problem(410, f"job-{job['status']}", detail="The picture is broken.")
        return httpx.Response(200, content=self.picture, headers={"Content-Type": "image/png"})

    def _move(self, job: dict[str, Any]) -> None:
        if job["status"] == "queued":
            job |= {"status": "running", "progress": {"step": 1, "steps": 4}}
        elif job["status"] == "running" and job["id"] in self._doomed:
            error = {"type": "urn:sfumato:problem:bad-picture", "title": "Broken", "detail": "The picture is broken."}
            job |= {"status": "failed", "progress": None, "error": error}
        elif job["status"] == "running":
            job |= {"status": "succeeded", "progress": None}
