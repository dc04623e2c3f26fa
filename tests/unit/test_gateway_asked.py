"""What callers say is read the same way from query, form and JSON, and refused with the reason and the choices."""

import json
import re

import pytest

from sfumato.core.errors import UnknownModel
from sfumato.core.job import Priority
from sfumato.core.params import Sampler
from sfumato.gateway.asked import (
    Asked,
    AskedJson,
    ListAsked,
    idempotency_key,
    openapi_parameters,
    parse,
    read_query,
    wait_s,
)
from sfumato.gateway.problems import Refusal
from sfumato.models.registry import Registry


def _refused(**given: object) -> Refusal:
    with pytest.raises(Refusal) as refused:
        parse(Asked, {"model_name": "restyle", **given})
    return refused.value


def test_query_text_becomes_values() -> None:
    query = {"model_name": "m", "strength": "0.5", "num_inference_steps": "8", "priority": "high", "sampler": "ddim"}
    asked = parse(Asked, query)
    assert (asked.strength, asked.num_inference_steps) == (0.5, 8)
    assert (asked.priority, asked.sampler) == (Priority.HIGH, Sampler.DDIM)


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"strength": "nan"}, "finite"),
        ({"guidance_scale": "-inf"}, "finite"),
        ({"strength": "much"}, "valid number"),
        ({"num_inference_steps": "8.5"}, "integer"),
        ({"strength": "NaN"}, "strength is 'NaN'; it must be a finite number"),
        ({"prompt": "a\0b"}, "NUL"),
        ({"model_name": "x" * 201}, "it must have at most 200 characters"),
        ({"priority": "urgent"}, "'high', 'normal' or 'low'"),
        ({"sampler": "magic"}, "'euler'.*'lcm'"),
        ({"output_format": "gif"}, "'png', 'jpeg' or 'webp'"),
        ({"metadata": "[1]"}, "JSON object"),
        ({"metadata": "{"}, "metadata"),
        ({"metadata": '{"a": NaN}'}, "metadata"),
        ({"metadata": json.dumps({"a": "x" * 1_100})}, "at most 1024"),
        ({"metadata": "[" * 1_000}, "metadata"),
    ],
)
def test_bad_values_are_named(given: dict[str, str], says: str) -> None:
    refusal = _refused(**given)
    assert refusal.case.slug == "invalid-parameters"
    assert next(iter(given)) in refusal.detail
    assert re.search(says, refusal.detail)


def test_unknown_names_are_refused_with_the_known_ones() -> None:
    refusal = _refused(steps="8")
    assert refusal.case.slug == "unknown-parameter"
    assert "num_inference_steps" in refusal.detail


def test_a_missing_model_is_named() -> None:
    with pytest.raises(Refusal, match=r"model_name is missing; give one of: restyle\."):
        parse(Asked, {}, Registry.load(None))
    with pytest.raises(Refusal, match="model_name is missing"):
        parse(Asked, {})


def test_an_unknown_model_comes_before_what_it_would_not_allow() -> None:
    with pytest.raises(UnknownModel):
        parse(AskedJson, b'{"model_name": "nope", "image": 1}', Registry.load(None))


def test_what_can_not_be_read_brings_no_other_complaint() -> None:
    given = {"model_name": "restyle", "strength": "much", "num_inference_steps": "1", "width": "wide", "height": "64"}
    with pytest.raises(Refusal) as refused:
        parse(Asked, given, Registry.load(None))
    assert refused.value.detail.count(";") == 2


@pytest.mark.parametrize("query", [b"prompt=a&prompt=a", b"prompt=%ff", b"%fe=1", b"prompt=\xff"])
def test_queries_that_mean_two_things_or_no_text_are_refused(query: bytes) -> None:
    with pytest.raises(Refusal) as refused:
        read_query(query)
    assert refused.value.case.slug == "invalid-parameters"


def test_an_empty_value_is_a_value() -> None:
    assert read_query(b"prompt=&seed=1") == {"prompt": "", "seed": "1"}


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b'"x"', b'{"prompt": "\xff"}', b'{"prompt": "\\ud800"}'])
def test_what_is_no_json_object_is_refused(body: bytes) -> None:
    with pytest.raises(Refusal) as refused:
        parse(AskedJson, body)
    assert refused.value.case.slug == "bad-json"


def test_json_metadata_may_not_hold_what_json_has_not() -> None:
    with pytest.raises(Refusal, match="metadata"):
        parse(AskedJson, b'{"model_name": "m", "image": "x", "metadata": {"a": NaN}}')


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        (None, 0),
        ("wait=5", 5),
        ("respond-async, wait=5", 5),
        ("respond-async;WAIT = 7", 7),
        ("wait=900", 60),
        ("wait=-1", 0),
        ("wait=x", 0),
        ("await=5", 0),
    ],
)
def test_prefer_wait(header: str | None, seconds: float) -> None:
    assert wait_s(header, longest_s=60) == seconds


@pytest.mark.parametrize("key", ["", "x" * 256, "ü", "a\x01b"])
def test_unusable_idempotency_keys_are_refused(key: str) -> None:
    with pytest.raises(Refusal) as refused:
        idempotency_key(key)
    assert refused.value.case.slug == "bad-idempotency-key"


def test_the_documented_parameters_are_those_that_are_read() -> None:
    assert {p["name"] for p in openapi_parameters(Asked)} == set(Asked.model_fields)
    assert "$ref" not in json.dumps(openapi_parameters(Asked) + openapi_parameters(ListAsked))
