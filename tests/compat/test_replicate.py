"""Replicate's own client, unmodified, against a real `sfumato up` that needs keys; and what the docs show of it."""

import asyncio
import io
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
import replicate
from PIL import Image
from replicate.exceptions import ModelError, ReplicateError
from replicate.helpers import FileOutput
from replicate.pagination import paginate
from replicate.webhook import Webhooks, WebhookSigningSecret, WebhookValidationError

from sfumato.gateway.compat.replicate.predictions import PREDICTIONS_A_PAGE
from tests.reader import ROOT, Reader, blocks
from tests.receivers import Receiver, receiving
from tests.sample_pictures import picture
from tests.service import Service
from tests.support import poll

pytestmark = pytest.mark.server

MODELS = """
[models.quick]
backend = "simulated"

[models."not so quick"]
backend = "simulated"
path = "slow"
"""
SLOW = "sfumato/not%20so%20quick"
WAIT_S = 1.0
CAT = ROOT / "images" / "cat.jpg"
PAGE = ROOT / "docs" / "how-to" / "clients.md"


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A service with a quick model, and one that takes 0.1 s a step."""
    environment = {
        "SFUMATO_AUTH": "keys",
        "SFUMATO_WEBHOOK_ALLOW": "127.0.0.0/8",
        "SFUMATO_MAX_WAIT_S": str(WAIT_S),
    }
    prepared = Service(tmp_path_factory.mktemp("replicate"), models=MODELS, environment=environment)
    prepared.simulate("slow", {"fixed_s": 0.1})
    with prepared as service:
        yield service


def key_of(service: Service, owner: str, *scopes: str) -> str:
    environment = dict(os.environ) | {"SFUMATO_DATA_DIR": str(service.data_dir)}  # noqa: TID251 - the child's
    wanted = [word for scope in scopes for word in ("--scope", scope)]
    command = [sys.executable, "-m", "sfumato", "keys", "create", owner, *wanted]
    made = subprocess.run(command, capture_output=True, text=True, check=True, env=environment, timeout=60)
    return made.stdout.split()[-1]


@pytest.fixture(scope="module")
def key(service: Service) -> str:
    return key_of(service, "alice")


Connect = Callable[[str], replicate.Client]


@pytest.fixture(scope="module")
def connect(service: Service) -> Iterator[Connect]:
    """Makes clients with a key each. They have no way to be closed, so their connections are."""
    made: list[replicate.Client] = []

    def connected(key: str) -> replicate.Client:
        made.append(replicate.Client(api_token=key, base_url=service.url))
        made[-1].poll_interval = 0.05
        return made[-1]

    yield connected
    for client in made:
        client._client.close()


@pytest.fixture(scope="module")
def client(connect: Connect, key: str) -> replicate.Client:
    return connect(key)


def image(data: bytes | None = None) -> io.BytesIO:
    """A picture as an open file."""
    return io.BytesIO(picture() if data is None else data)


def size_of(made: FileOutput | str) -> tuple[int, int]:
    """The size of a picture that the client gave, or of the one at an address, which needs no key."""
    data = httpx.get(made).raise_for_status().content if isinstance(made, str) else made.read()
    with Image.open(io.BytesIO(data)) as picture:
        return picture.size


def version_of(client: replicate.Client, model: str) -> str:
    found: str = client.models.get(model).latest_version.id
    return found


def test_run_makes_a_picture_of_a_file_and_of_a_path(client: replicate.Client) -> None:
    asked = {"prompt": "neon", "width": 64, "height": 96, "output_format": "jpg"}
    with CAT.open("rb") as file:
        for given in (CAT, file, image()):
            (made,) = client.run("sfumato/quick", input=asked | {"image": given})
            assert size_of(made) == (64, 96)
    names = {each.name for each in client.files.list()}
    assert "cat.jpg" in names


def test_run_takes_a_version(client: replicate.Client) -> None:
    version = version_of(client, "sfumato/quick")
    for ref in (f"sfumato/quick:{version}", client.models.get("sfumato/quick").latest_version):
        made = client.run(ref, input={"image": image(), "prompt": "neon"})
        assert isinstance(made, list), "the client takes it for a model whose output comes piece by piece"
        assert size_of(made[0])


def test_run_takes_a_picture_within_its_request(client: replicate.Client) -> None:
    before = len(client.files.list())
    (made,) = client.run("sfumato/quick", input={"image": CAT, "seed": 1}, file_encoding_strategy="base64")

    assert size_of(made)
    assert len(client.files.list()) == before


def test_run_goes_on_until_the_end_when_its_wait_ran_out(client: replicate.Client) -> None:
    # 2.5 s of steps, and a create waits for 1 s.
    asked = {"image": image(), "num_inference_steps": 25, "prompt_strength": 1}
    (made,) = client.run(SLOW, input=asked, wait=1)

    assert size_of(made)


def test_run_works_in_a_loop_too(connect: Connect, key: str) -> None:
    async def run() -> Any:
        client = connect(key)
        async with client._async_client:
            return await client.async_run("sfumato/quick", input={"image": image(), "prompt": "neon"})

    (made,) = asyncio.run(run())
    assert size_of(made)


def test_a_prediction_is_followed_and_canceled(client: replicate.Client) -> None:
    prediction = client.predictions.create(
        model=SLOW, input={"image": image(), "num_inference_steps": 200, "prompt_strength": 1}
    )
    assert prediction.status == "starting"

    def halfway() -> bool:
        prediction.reload()
        return prediction.status == "processing" and bool(prediction.progress and prediction.progress.current)

    poll(halfway, within_s=20)
    assert prediction.progress.total == 200
    assert prediction.progress.current < 200
    prediction.cancel()
    assert prediction.status == "canceled"
    prediction.wait()
    assert (prediction.status, prediction.output, prediction.error) == ("canceled", None, None)


def test_a_prediction_goes_on_when_its_client_leaves(client: replicate.Client) -> None:
    before = {each.id for each in client.predictions.list()}
    asked = {"image": client.files.create(image()).urls["get"], "num_inference_steps": 8, "prompt_strength": 1}
    with pytest.raises(httpx.ReadTimeout):
        client._client.post(
            f"/v1/models/{SLOW}/predictions", json={"input": asked}, timeout=0.2, headers={"Prefer": "wait"}
        )

    (left,) = poll(lambda: [each for each in client.predictions.list() if each.id not in before], within_s=5)
    left.wait()
    assert left.status == "succeeded"
    assert left.metrics["predict_time"] > 0.5


def test_a_prediction_that_fails_is_a_model_error(client: replicate.Client) -> None:
    cut_off = image(CAT.read_bytes()[:-4_000])
    with pytest.raises(ModelError, match="the picture can't be decoded") as raised:
        client.run("sfumato/quick", input={"image": cut_off, "prompt": "neon"})

    assert raised.value.prediction.status == "failed"


def test_what_is_refused_says_so_in_the_words_of_the_caller(connect: Connect, client: replicate.Client) -> None:
    refused: dict[str, Callable[[], object]] = {
        "prompt_strength is 7.0": lambda: client.run("sfumato/quick", input={"image": image(), "prompt_strength": 7}),
        "changes whole pictures": lambda: client.run("sfumato/quick", input={"image": image(), "mask": image()}),
        "'sfumato/slow' is unknown": lambda: client.run("sfumato/slow", input={"image": image()}),
        "No file has this id": lambda: client.files.get("none"),
        "can't be read": lambda: client.files.create(io.BytesIO(b"text")),
        "No job has this id": lambda: client.predictions.get("none"),
        "cursor": lambda: client.predictions.list("/v1/predictions?cursor=none"),
        "a key that is good": connect("r8_none").predictions.list,
        "Model does not support streaming": lambda: next(client.stream("sfumato/quick", input={"image": image()})),
    }
    for words, act in refused.items():
        with pytest.raises(ReplicateError) as raised:
            act()
        assert words in str(raised.value) or words in str(raised.value.args)


def test_predictions_are_listed_page_by_page(service: Service, connect: Connect) -> None:
    client = connect(key_of(service, "bob"))
    file = client.files.create(image()).urls["get"]
    made = [
        client.predictions.create("quick", input={"image": file, "seed": seed}).id
        for seed in range(PREDICTIONS_A_PAGE + 3)
    ]

    def recorded() -> bool:
        return [each.id for page in paginate(client.predictions.list) for each in page] == made[::-1]

    poll(recorded, within_s=10)
    assert [len(page) for page in paginate(client.predictions.list)] == [PREDICTIONS_A_PAGE, 3]
    assert client.predictions.list()[0].input["seed"] == PREDICTIONS_A_PAGE + 2


def test_files_are_made_shown_and_deleted(client: replicate.Client) -> None:
    file = client.files.create(CAT, metadata={"order": 7})

    assert (file.name, file.content_type, file.size) == ("cat.jpg", "image/jpeg", CAT.stat().st_size)
    assert file.metadata == {"order": 7}
    assert client.files.get(file.id) == file
    assert file in client.files.list()
    assert client.files.delete(file.id) is True
    assert file.id not in {each.id for each in client.files.list()}


def test_models_and_their_versions_are_shown(client: replicate.Client) -> None:
    quick, slow = client.models.list()

    assert (quick.id, slow.id) == ("sfumato/quick", SLOW)
    assert client.models.get("sfumato/quick") == quick
    assert client.models.get(SLOW) == client.models.get("sfumato", "not so quick") == slow
    assert [each.id for each in client.models.search("not so")] == [SLOW]
    (version,) = slow.versions.list()
    assert slow.versions.get(version.id) == version == slow.latest_version
    taken = version.openapi_schema["components"]["schemas"]["Input"]["properties"]
    assert taken["num_inference_steps"]["maximum"] == 200
    assert client.accounts.current().username == "alice"


def test_the_client_of_openai_reads_the_same_list(service: Service, key: str) -> None:
    with openai.OpenAI(api_key=key, base_url=f"{service.url}/v1") as client:
        assert [each.id for each in client.models.list()] == ["quick", "not so quick"]
        assert client.models.retrieve("not so quick").owned_by == "sfumato"
        with pytest.raises(openai.NotFoundError, match=r"model 'nope' is unknown\. Choose one of: quick, not so quick"):
            client.models.retrieve("nope")


def validated(receiver: Receiver, secret: WebhookSigningSecret) -> list[Any]:
    """What was received, each checked as the client's own users do."""
    for each in receiver.got:
        Webhooks.validate(headers=each.headers, body=each.body.decode(), secret=secret, tolerance=60)
    return [each.event for each in receiver.got]


def test_webhooks_tell_predictions_and_are_signed_as_the_client_checks(
    service: Service, connect: Connect, client: replicate.Client
) -> None:
    secret = client.webhooks.default.secret()
    with receiving() as all_of_it, receiving() as end:
        asked = {"image": image(), "prompt": "neon"}
        first = client.predictions.create(model="sfumato/quick", input=asked, webhook=all_of_it.url)
        asked = {"image": image(), "prompt": "night"}
        client.predictions.create(
            model="sfumato/quick", input=asked, webhook=end.url, webhook_events_filter=["completed"]
        )
        poll(lambda: len(all_of_it.got) == 2 and len(end.got) == 1, within_s=20)

    started, ended = validated(all_of_it, secret)
    assert (started["id"], started["status"]) == (first.id, "processing")
    first.reload()
    told = replicate.prediction.Prediction(**ended)
    assert told.dict(exclude={"output"}) == first.dict(exclude={"output"})
    assert size_of(told.output[0]), "others read the access link"
    assert [each["status"] for each in validated(end, secret)] == ["succeeded"]
    others = connect(key_of(service, "carol")).webhooks.default.secret()
    with pytest.raises(WebhookValidationError):
        validated(end, others)


def test_a_key_that_may_only_read_sees_and_changes_nothing_more(
    service: Service, connect: Connect, client: replicate.Client
) -> None:
    reader = connect(key_of(service, "alice", "read"))
    prediction = client.predictions.create("quick", input={"image": image()})
    prediction.wait()

    assert reader.predictions.get(prediction.id).output == prediction.output
    for act in (
        lambda: reader.predictions.create("quick", input={"image": "data:,"}),
        lambda: reader.predictions.cancel(prediction.id),
        lambda: reader.files.create(image()),
        reader.webhooks.default.secret,
    ):
        with pytest.raises(ReplicateError, match="the scope submit") as raised:
            act()
        assert raised.value.status == 403


def test_the_page_about_clients_says_what_works(tmp_path: Path) -> None:
    section = PAGE.read_text().partition("## Replicate\n")[2].partition("\n## ")[0]
    (tmp_path / "section.md").write_text(section)
    shown = blocks(tmp_path / "section.md")
    assert [block.language for block in shown] == ["python", "text"]
    with Service(tmp_path / "up", models=None) as service:
        reader = Reader(tmp_path, service, {})
        for block in shown:
            reader.do(block)
    with Image.open(tmp_path / "out" / "replicate.png") as made:
        assert made.width > made.height
