"""`sfumato storage lifecycle`: the bucket is told how long things are kept, where it can be."""

import base64
import hashlib
import re

import pytest

from sfumato.cli import main
from sfumato.storage.lifecycle import days
from sfumato.storage.s3_http import ask
from sfumato.storage.s3_place import S3Place
from tests.integration.s3_answers import answering
from tests.s3_servers import S3_SERVERS, s3_bucket

SET = """\
outcomes/  14 days
outputs/   15 days
requests/  15 days
inputs/    3 days
uploads/   1 days
previews/  1 days
"""


def settle(monkeypatch: pytest.MonkeyPatch, place: S3Place) -> None:
    """What an operator exports."""
    monkeypatch.setenv("SFUMATO_S3_BUCKET", place.bucket)
    monkeypatch.setenv("SFUMATO_S3_ENDPOINT", place.endpoint)
    monkeypatch.setenv("SFUMATO_S3_ACCESS_KEY_ID", place.access_key_id)
    monkeypatch.setenv("SFUMATO_S3_SECRET_ACCESS_KEY", place.secret_access_key)


def rules(place: S3Place) -> dict[str, str]:
    """Id → days, as the store tells them."""
    answer = ask(place, "GET", query={"lifecycle": ""})
    assert answer.status == 200, answer
    return dict(re.findall(r"<ID>([^<]+)</ID>.*?<Days>(\d+)</Days>", answer.body.decode()))


@pytest.mark.parametrize("name", S3_SERVERS)
def test_bucket_is_told_what_is_kept_and_for_how_long(
    request: pytest.FixtureRequest, name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    place = s3_bucket(request, name)
    settle(monkeypatch, place)

    assert main(["storage", "lifecycle"]) == 0
    assert capsys.readouterr().out == SET
    assert rules(place)["sfumato-inputs"] == "3"

    monkeypatch.setenv("SFUMATO_INPUT_KEEP_S", str(4.5 * 86_400))
    assert main(["storage", "lifecycle"]) == 0
    assert rules(place) == {
        "sfumato-outcomes": "14",
        "sfumato-outputs": "15",
        "sfumato-requests": "15",
        "sfumato-inputs": "5",
        "sfumato-uploads": "1",
        "sfumato-previews": "1",
    }
    assert ask(place, "PUT", "inputs/a", body=b"x").status == 200
    assert ask(place, "GET", "inputs/a").body == b"x"


@pytest.mark.parametrize("name", S3_SERVERS)
def test_rules_of_others_stay(request: pytest.FixtureRequest, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    place = s3_bucket(request, name)
    rule = "<Rule><ID>theirs</ID><Status>Enabled</Status><Filter><Prefix>logs/</Prefix></Filter>"
    theirs = f"<LifecycleConfiguration>{rule}<Expiration><Days>90</Days></Expiration></Rule></LifecycleConfiguration>"
    checksum = base64.b64encode(hashlib.md5(theirs.encode(), usedforsecurity=False).digest()).decode()
    told = ask(place, "PUT", query={"lifecycle": ""}, body=theirs.encode(), headers={"content-md5": checksum})
    assert told.status == 200, told
    settle(monkeypatch, place)

    assert main(["storage", "lifecycle"]) == 0
    assert main(["storage", "lifecycle"]) == 0

    found = rules(place)
    assert found["theirs"] == "90"
    assert len(found) == 7


@pytest.mark.parametrize(("status", "code"), [(501, "NotImplemented"), (405, ""), (400, "UnsupportedOperation")])
def test_store_without_rules_is_said_to_have_none(
    status: int, code: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with answering(status, code) as place:
        settle(monkeypatch, place)
        assert main(["storage", "lifecycle"]) == 0
    assert "no lifecycle rules; the recorder removes what is old" in capsys.readouterr().out


def test_folder_needs_no_rules(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["storage", "lifecycle"]) == 0
    assert "the recorder removes what is old from the folder" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("status", "code", "words"),
    [
        (403, "AccessDenied", "read, write, list and delete"),
        (403, "SignatureDoesNotMatch", "SFUMATO_S3_SECRET_ACCESS_KEY"),
        (404, "NoSuchBucket", "Make the bucket"),
        (500, "InternalError", "answers 500 InternalError. See its log"),
    ],
)
def test_store_that_refuses_is_told_with_what_to_do(
    status: int, code: str, words: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with answering(status, code) as place:
        settle(monkeypatch, place)
        assert main(["storage", "lifecycle"]) == 1
    assert words in capsys.readouterr().err


def test_store_that_is_down_is_told(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    with answering(200, "") as place:
        settle(monkeypatch, place)
    assert main(["storage", "lifecycle"]) == 1
    assert "does not answer" in capsys.readouterr().err


def test_rules_need_keys_of_their_own(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("SFUMATO_S3_BUCKET", "pictures")
    assert main(["storage", "lifecycle"]) == 1
    assert "SFUMATO_S3_ACCESS_KEY_ID" in capsys.readouterr().err


def test_days_are_whole_and_never_too_few() -> None:
    assert [days(seconds) for seconds in (1, 86_400, 86_401, 14 * 86_400)] == [1, 1, 2, 14]
