"""Prometheus' own tool on our configuration and rules; each alert is tried where it must fire and where it must not."""

import re

import pytest

from tests.prometheus import DEPLOY, promtool

pytestmark = pytest.mark.server


def test_configuration_and_rules_are_in_order() -> None:
    assert "SUCCESS" in promtool("check", "config", DEPLOY / "prometheus.yml")


def test_each_alert_fires_where_it_must_and_nowhere_else() -> None:
    assert "SUCCESS" in promtool("test", "rules", DEPLOY / "prometheus-rules.test.yml")


def test_tests_of_the_rules_see_a_threshold_that_moved(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Else the tests would prove nothing."""
    folder = tmp_path_factory.mktemp("moved")
    (folder / "prometheus-rules.test.yml").write_text((DEPLOY / "prometheus-rules.test.yml").read_text())
    rules = (DEPLOY / "prometheus-rules.yml").read_text()
    (folder / "prometheus-rules.yml").write_text(re.sub(r"> 600$", "> 6000", rules, flags=re.MULTILINE))

    with pytest.raises(AssertionError, match="OldestJobTooOld"):
        promtool("test", "rules", folder / "prometheus-rules.test.yml")
