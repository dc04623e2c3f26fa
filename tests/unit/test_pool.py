"""The workers of one host follow what the controller wants."""

import asyncio
import dataclasses
import signal
import socket
from collections.abc import Callable, Coroutine, Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from sfumato.config import load_settings
from sfumato.core.errors import TransientError
from sfumato.core.scaling import Ends, Placement
from sfumato.models.registry import Model, Registry, Scaling
from sfumato.process import NOT_NEEDED
from sfumato.supervisor.keeping import Role, Supervisor
from sfumato.supervisor.pool import ASK_EVERY_S, Offer, Pool, Room, room_for
from tests.memory_scaling import MemoryScaling
from tests.support import NOW

RESTYLE = next(iter(Registry.load(None)))
SECOND = dataclasses.replace(RESTYLE, name="second", slug="second")


class Recorded(Supervisor):
    """Starts nothing; a child that is told to end does so when the test says."""

    def __init__(self) -> None:
        super().__init__({}, -1)
        self.may_end = asyncio.Event()
        self.may_end.set()

    def start(self, role: Role) -> None:
        self.children[role.name] = SimpleNamespace(role=role, process=None, ends=0, how="")  # type: ignore[assignment]

    async def release(self, name: str, sign: signal.Signals, grace_s: float) -> None:
        assert sign is NOT_NEEDED
        await self.stop([name], grace_s)

    async def stop(self, names: Sequence[str], within_s: float) -> None:
        for name in names:
            del self.children[name]
        await self.may_end.wait()


class Host:
    """A pool over a recorded supervisor."""

    def __init__(self, places: int, gpus: Sequence[str] = (), workers: int = 4) -> None:
        self.supervisor = Recorded()
        self.pool = Pool(self.supervisor, Room(places, workers, gpus), grace_s=1.0, patience_s=1.0)

    async def adjust(self, wanted: Mapping[str, Placement], models: Sequence[Model] = (RESTYLE, SECOND)) -> list[str]:
        """What runs after one step and whatever ended by it."""
        self.pool.adjust(models, wanted)
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        return sorted(self.supervisor.children)

    def devices(self) -> list[str]:
        roles = [child.role for child in self.supervisor.children.values()]
        return sorted(dict(role.environment).get("CUDA_VISIBLE_DEVICES", "") for role in roles)


def run(test: Callable[[], Coroutine[Any, Any, None]]) -> None:
    asyncio.run(test())


def test_workers_are_started_and_ended_as_wanted() -> None:
    async def test() -> None:
        host = Host(places=4)
        assert await host.adjust({"restyle": Placement(2)}) == ["worker restyle 0", "worker restyle 1"]
        assert await host.adjust({"restyle": Placement(1)}) == ["worker restyle 1"]
        assert await host.adjust({}) == []

    run(test)


def test_no_more_run_at_once_than_there_are_places() -> None:
    async def test() -> None:
        host = Host(places=2)
        wanted = {"restyle": Placement(5), "second": Placement(5)}
        assert await host.adjust(wanted) == ["worker restyle 0", "worker second 0"]

    run(test)


def test_successor_waits_until_the_place_is_really_free() -> None:
    async def test() -> None:
        host = Host(places=1)
        await host.adjust({"restyle": Placement(1)})
        host.supervisor.may_end.clear()
        assert await host.adjust({"second": Placement(1)}) == []
        assert await host.adjust({"second": Placement(1)}) == []

        host.supervisor.may_end.set()
        await host.adjust({"second": Placement(1)})

        assert await host.adjust({"second": Placement(1)}) == ["worker second 0"]

    run(test)


def test_each_worker_has_a_gpu_of_its_own() -> None:
    async def test() -> None:
        host = Host(places=0, gpus=("GPU-a", "GPU-b", "GPU-c"))
        models = [dataclasses.replace(model, backend="diffusers") for model in (RESTYLE, SECOND)]
        await host.adjust({"restyle": Placement(2), "second": Placement(4)}, models)
        assert host.devices() == ["GPU-a", "GPU-b", "GPU-c"]

        await host.adjust({"restyle": Placement(1), "second": Placement(1)}, models)
        assert len(host.devices()) == 2
        await host.adjust({"restyle": Placement(1), "second": Placement(2)}, models)
        assert host.devices() == ["GPU-a", "GPU-b", "GPU-c"]

    run(test)


def test_idlest_worker_is_ended_first_but_one_that_never_got_ready_before_it() -> None:
    async def test() -> None:
        host = Host(places=4)
        await host.adjust({"restyle": Placement(3)})
        here = socket.gethostname()
        for number, child in enumerate(host.supervisor.children.values()):
            child.process = SimpleNamespace(pid=100 + number)  # type: ignore[assignment]
        idlest = (f"{here}-101-aa", "elsewhere-100-bb", f"{here}-100-cc")

        left = await host.adjust({"restyle": Placement(2, idlest)})
        assert left == ["worker restyle 0", "worker restyle 1"]

        assert await host.adjust({"restyle": Placement(1, idlest)}) == ["worker restyle 0"]

    run(test)


def test_model_that_changed_is_started_anew_but_not_for_a_change_of_its_scaling() -> None:
    async def test() -> None:
        host, wanted = Host(places=4), {"restyle": Placement(1)}
        await host.adjust(wanted)
        scaled = dataclasses.replace(RESTYLE, scaling=Scaling(most=3))
        before = host.supervisor.children["worker restyle 0"]

        await host.adjust(wanted, [scaled])
        assert host.supervisor.children["worker restyle 0"] is before

        changed = dataclasses.replace(RESTYLE, batch=2)
        assert await host.adjust(wanted, [changed]) == ["worker restyle 1"]

    run(test)


def test_model_that_left_the_list_has_no_workers() -> None:
    async def test() -> None:
        host, wanted = Host(places=4), {"restyle": Placement(1), "second": Placement(1)}
        await host.adjust(wanted)
        assert await host.adjust(wanted, [SECOND]) == ["worker second 0"]

    run(test)


def test_host_has_a_place_for_each_gpu_else_for_each_model(tmp_path: Path) -> None:
    none, three = tmp_path / "none", [RESTYLE, SECOND, SECOND]
    assert room_for(load_settings(), none).places(three) == 3
    assert room_for(load_settings(workers=2), none).places(three) == 6
    assert room_for(load_settings(places=1), none).places(three) == 1
    assert room_for(load_settings(workers=0), none).places(three) == 0

    for name in ("0000:01:00.0", "0000:02:00.0"):
        (tmp_path / "gpus" / name).mkdir(parents=True)
    room = room_for(load_settings(), tmp_path / "gpus")
    on_gpus = dataclasses.replace(RESTYLE, backend="diffusers")
    assert (room.places([*three, on_gpus]), room.workers, room.gpus) == (2, 2, ("0", "1"))
    assert room.places(three) == 6, "ONNX models have no use for a GPU"
    assert room.places([*three, dataclasses.replace(on_gpus, device="cpu")]) == 8


def test_gpus_that_cuda_may_see_are_taken_from_its_own_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "GPU-a, GPU-b")
    assert room_for(load_settings()).gpus == ("GPU-a", "GPU-b")


@pytest.mark.parametrize("hidden", ["", "-1", "NoDevFiles"])
def test_gpus_that_cuda_may_not_see_are_left_alone(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, hidden: str
) -> None:
    (tmp_path / "0000:01:00.0").mkdir()
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", hidden)
    assert room_for(load_settings(), tmp_path).gpus == ()


def test_while_the_database_is_away_the_last_decision_stays() -> None:
    async def test() -> None:
        away, now = False, 0.0

        async def io(what: str) -> None:
            if away:
                raise TransientError(f"no {what}") if now < 2 * ASK_EVERY_S else RuntimeError("nobody foresaw this")

        store = MemoryScaling(lambda: NOW, io)
        store.placements = {"host": {"restyle": Placement(2)}}
        offer = Offer(store, "host")
        for away in (False, True, True, False):  # noqa: B007 - `io` reads it
            offer.renew(4, {}, now)
            await asyncio.sleep(0)
            now += ASK_EVERY_S
            offer.renew(4, {}, now)
            assert offer.wanted == {"restyle": Placement(2)}
        await offer.withdraw()
        assert await store.pools(silent_s=1) == []

    run(test)


def test_host_tells_how_often_its_workers_ended() -> None:
    async def test() -> None:
        host = Host(places=4)
        await host.adjust({"restyle": Placement(1), "second": Placement(2)})
        assert host.pool.ends() == {}
        for number, (ends, how) in enumerate([(2, "ended with status -9"), (1, "could not be started")]):
            child = host.supervisor.children[f"worker second {number}"]
            child.ends, child.how = ends, how
        assert host.pool.ends() == {"second": Ends(3, "could not be started")}

    run(test)
