"""Settings: read in one place, refused by name."""

from pathlib import Path

import pytest

from sfumato.config import BadSettings, child_environment, load_settings


def test_the_command_line_goes_before_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SFUMATO_PORT", "8001")
    assert load_settings().port == 8001
    assert load_settings(port=8002, host=None).port == 8002


def test_a_wrong_value_is_refused_by_the_name_of_its_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SFUMATO_PORT", "eighty")
    with pytest.raises(BadSettings, match="SFUMATO_PORT"):
        load_settings()


def test_what_a_job_needs_must_outlast_its_wait() -> None:
    with pytest.raises(BadSettings, match="job_wait_s must be shorter than input_keep_s"):
        load_settings(job_wait_s=10 * 86_400)


def test_a_beat_must_be_shorter_than_the_takeover() -> None:
    with pytest.raises(BadSettings, match="beat_s must be shorter"):
        load_settings(beat_s=5, takeover_s=3)


def test_a_child_sees_the_same_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = load_settings(port=0, takeover_s=2.5, link_secrets="s3cret", workers=2)
    for name, value in child_environment(settings).items():
        monkeypatch.setenv(name, value)
    assert load_settings() == settings


def test_database_address_must_be_one_of_postgresql_and_is_never_shown() -> None:
    with pytest.raises(BadSettings, match=r"SFUMATO_DATABASE_URL: .*must begin with postgresql://") as refused:
        load_settings(database_url="mysql://user:s3cret@host/rows")
    assert "s3cret" not in str(refused.value)
    assert "s3cret" not in repr(load_settings(database_url="postgresql://user:s3cret@host/rows"))


def test_address_of_the_rates_must_be_one_of_valkey_and_is_never_shown() -> None:
    with pytest.raises(BadSettings, match=r"SFUMATO_RATES_URL: .*must begin with valkey://") as refused:
        load_settings(rates_url="http://:s3cret@host")
    assert "s3cret" not in str(refused.value)
    assert "s3cret" not in repr(load_settings(rates_url="rediss://:s3cret@host"))


def test_rows_are_in_the_data_folder_unless_a_database_is_named(tmp_path: Path) -> None:
    url = "postgresql://user:s3cret@host/rows"
    assert load_settings(data_dir=tmp_path).rows_address == tmp_path / "rows.sqlite"
    assert load_settings(data_dir=tmp_path, database_url=url).rows_address == url


@pytest.mark.parametrize("proxies", ["", "*", "10.0.0.7", "10.0.0.0/24, ::1"])
def test_proxies_are_addresses_and_networks(proxies: str) -> None:
    assert load_settings(trusted_proxies=proxies).trusted_proxies == proxies


@pytest.mark.parametrize("proxies", ["nginx", "10.0.0.7/24", "*, ::1"])
def test_proxy_by_another_name_is_refused(proxies: str) -> None:
    with pytest.raises(BadSettings, match=r"SFUMATO_TRUSTED_PROXIES: .*is no address or network"):
        load_settings(trusted_proxies=proxies)


def test_redirect_needs_an_address_that_clients_reach() -> None:
    with pytest.raises(BadSettings, match="needs s3_bucket and s3_public_url"):
        load_settings(result_delivery="redirect", s3_bucket="pictures")


def test_a_key_without_its_secret_is_refused() -> None:
    with pytest.raises(BadSettings, match="belong together"):
        load_settings(s3_access_key_id="key")


def test_a_bucket_is_a_place_and_its_secret_is_not_shown() -> None:
    settings = load_settings(
        s3_bucket="pictures", s3_endpoint="http://store:9000/", s3_access_key_id="key", s3_secret_access_key="s3cret"
    )
    assert settings.s3_place is not None
    assert (settings.s3_place.endpoint, settings.s3_place.secret_access_key) == ("http://store:9000", "s3cret")
    assert "s3cret" not in repr(settings) + repr(settings.s3_place)
    assert load_settings().s3_place is None
