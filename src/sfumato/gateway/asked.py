"""What callers may say: the parameters of a submission and of a list, the headers that change an answer.

One model reads query, form and JSON alike, so a value is good or bad for the same reason everywhere.
"""

import json
import re
from collections import Counter
from collections.abc import Collection, Mapping
from types import MappingProxyType
from typing import Annotated, Any, Final, TypeVar
from urllib.parse import unquote

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    TypeAdapter,
    ValidationError,
    field_validator,
)
from pydantic_core import ErrorDetails, from_json

from sfumato.core.history import moment
from sfumato.core.job import JobId, Priority, State
from sfumato.core.params import ModelRules, ParamsRequest
from sfumato.core.webhooks import DeliveryState, Hook
from sfumato.gateway.problems import Refusal
from sfumato.models.registry import Registry
from sfumato.net.targets import MAX_URL_CHARS

__all__ = [
    "Asked",
    "AskedJson",
    "DeliveriesAsked",
    "EndpointAsked",
    "EventsAsked",
    "ListAsked",
    "Metadata",
    "NewsAsked",
    "RotateAsked",
    "hooks",
    "idempotency_key",
    "is_job_id",
    "openapi_body",
    "openapi_parameters",
    "parse",
    "read_query",
    "wait_s",
]

METADATA_BYTES: Final = 1024
KEY_CHARS: Final = 255
JOB_ID: Final = TypeAdapter(JobId)
MOST_FAULTS: Final = 100
"""That are told one by one: a body of a few megabytes may have millions."""
UNREADABLE: Final = ("float_parsing", "int_parsing", "int_from_float", "int_parsing_size")


def hooks(text: str) -> tuple[Hook, ...]:
    """The webhook events of a comma separated list. Raises ValueError for one that does not exist."""
    try:
        return tuple(dict.fromkeys(Hook(part.strip()) for part in text.split(",") if part.strip()))
    except ValueError:
        raise ValueError(f"must be some of {', '.join(Hook)}, comma separated") from None


def without_nul(text: str) -> str:
    """The text, if a database takes it. Raises ValueError when it doesn't."""
    if "\0" in text:
        raise ValueError("must not hold the character NUL")
    return text


def small_object(given: object) -> object:
    """A JSON object, as itself or as text. Raises ValueError when it is none, or larger than is kept."""
    try:
        value = from_json(given, allow_inf_nan=False) if isinstance(given, str) else given
    except ValueError:
        value = None
    if not isinstance(value, dict):
        raise ValueError('must be a JSON object, such as {"order": 7}')
    size_bytes = len(json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode())
    if size_bytes > METADATA_BYTES:
        raise ValueError(f"is {size_bytes} bytes of JSON; at most {METADATA_BYTES} are kept")
    return value


Metadata = Annotated[dict[str, Any], BeforeValidator(small_object)]
OwnerAsked = Annotated[str, Field(max_length=64), AfterValidator(without_nul)]


class Asked(ParamsRequest):
    """A submission's parameters; `metadata` is a JSON object, echoed wherever the job is shown."""

    model_config = ConfigDict(extra="forbid")

    model_name: Annotated[str, Field(max_length=200)]
    priority: Priority = Priority.NORMAL
    metadata: Metadata = Field(default_factory=dict)
    webhook_url: Annotated[str, Field(max_length=MAX_URL_CHARS)] = ""
    webhook_events: Annotated[str, Field(max_length=200)] = ""

    @field_validator("webhook_events")
    @classmethod
    def _known_events(cls, given: str) -> str:
        hooks(given)
        return given

    @field_validator("prompt", "negative_prompt")
    @classmethod
    def _without_nul(cls, given: str) -> str:
        return without_nul(given)


class AskedJson(Asked):
    """A submission as JSON. `image` is the id of an upload or a data URL."""

    image: str


class ListAsked(BaseModel):
    """Which jobs to list. `count`: how many there are of them on all pages is wanted too."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    model_name: str = ""
    status: State | None = None
    owner: OwnerAsked = ""
    since: Annotated[str, Field(max_length=64)] = ""
    until: Annotated[str, Field(max_length=64)] = ""
    cursor: Annotated[str, Field(max_length=500)] = ""
    limit: Annotated[int, Field(ge=1, le=500)] = 50
    count: bool = False

    @field_validator("since", "until")
    @classmethod
    def _is_time(cls, given: str) -> str:
        if given:
            moment(given)
        return given

    @property
    def between(self) -> tuple[float | None, float | None]:
        """Unix seconds: from when on and until when the jobs were accepted, None where that is left open.

        Raises:
            Refusal: invalid-parameters, no time is between them.
        """
        since, until = (moment(told) if told else None for told in (self.since, self.until))
        if since is not None and until is not None and since >= until:
            said = f"since is {self.since!r} and until {self.until!r}; since must be before until."
            raise Refusal("invalid-parameters", said)
        return since, until


class EventsAsked(BaseModel):
    """What to tell beside a job's life; `token` is the link's."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    previews: bool = False
    token: str = ""


class NewsAsked(BaseModel):
    """Whose jobs to tell of, for who may see everybody's, and whether with previews."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    owner: OwnerAsked = ""
    previews: bool = False


class DeliveriesAsked(BaseModel):
    """Which webhook deliveries to list."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    job_id: Annotated[str, Field(max_length=100)] = ""
    state: DeliveryState | None = None
    cursor: Annotated[str, Field(max_length=500)] = ""
    limit: Annotated[int, Field(ge=1, le=500)] = 50


class EndpointAsked(BaseModel):
    """A new webhook endpoint; `events` are all that there are when empty."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    url: Annotated[str, Field(max_length=MAX_URL_CHARS)]
    events: tuple[Hook, ...] = ()


class RotateAsked(BaseModel):
    """For how long the secrets of before sign beside the new one, in seconds."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    overlap_s: Annotated[float, Field(ge=0, le=30 * 86_400)] = 86_400.0


M = TypeVar("M", bound=BaseModel)


def read_query(query: bytes) -> dict[str, str]:
    """The parameters of a raw query string. Raises Refusal when one stands there twice or is no UTF-8 text."""
    try:
        parts = [part.partition("=") for part in query.decode().split("&") if part]
        pairs = [(_unquoted(name), _unquoted(value)) for name, _, value in parts]
    except UnicodeDecodeError as error:
        raise Refusal("invalid-parameters", "The query is not UTF-8 text.") from error
    found = dict(pairs)
    if len(found) < len(pairs):
        counted = Counter(name for name, _ in pairs)
        twice = [name[:80] for name, times in counted.items() if times > 1]
        raise Refusal("invalid-parameters", f"{', '.join(twice)}: more than once in the query; send it once.")
    return found


def _unquoted(text: str) -> str:
    """As urllib's parse_qsl, which takes four times as long for all that it can do beside."""
    text = text.replace("+", " ")
    return unquote(text, errors="strict") if "%" in text else text


def parse(model: type[M], given: Mapping[str, object] | bytes, registry: Registry | None = None) -> M:
    """`given` (query and form fields, or a JSON body) as a `model`.

    With `registry`, what can't be read and what the named model does not allow are told together.

    Raises:
        Refusal: bad-json, unknown-parameter or invalid-parameters, naming everything that is wrong.
        UnknownModel: something is wrong, and the registry has no such model.
        BrokenModel: something is wrong, and the model's folder is too.
    """
    try:
        return model.model_validate_json(given) if isinstance(given, bytes) else model.model_validate(dict(given))
    except ValidationError as error:
        if error.error_count() > MOST_FAULTS:
            detail = f"{error.error_count()} things are wrong with it; see /docs for what is taken."
            raise Refusal("invalid-parameters", detail) from error
        raise _refusal(model, given, error.errors(include_url=False, include_context=False), registry) from error


def _refusal(
    model: type[BaseModel],
    given: Mapping[str, object] | bytes,
    errors: list[ErrorDetails],
    registry: Registry | None,
) -> Refusal:
    if any(error["type"] == "json_invalid" or not error["loc"] for error in errors):
        return Refusal("bad-json", f"{errors[0]['msg']}. Send a JSON object.")
    unknown = [str(error["loc"][0])[:80] for error in errors if error["type"] == "extra_forbidden"]
    if unknown:
        known = ", ".join(model.model_fields)
        picture = "; the picture's field is called image" if model is Asked else ""
        return Refusal("unknown-parameter", f"{', '.join(unknown)} is not known here. Known are: {known}{picture}.")
    values: Mapping[str, object] = from_json(given) if isinstance(given, bytes) else given
    name = values.get("model_name")
    rules = registry.get(name).rules if registry and isinstance(name, str) else None
    sentences = [_sentence(error, rules, registry) for error in errors]
    if rules:
        sentences += rules.faults(_readable(values, {str(error["loc"][0]) for error in errors}, rules))
    return Refusal("invalid-parameters", " ".join(sentences))


def _sentence(error: ErrorDetails, rules: ModelRules | None, registry: Registry | None) -> str:
    name, given = ".".join(str(part)[:80] for part in error["loc"]), error["input"]
    if error["type"] == "missing":
        choice = f"; give one of: {', '.join(registry.names())}" if registry and name == "model_name" else ""
        return f"{name} is missing{choice}."
    shown = f"{name} is {str(given)[:80]!r}; it" if isinstance(given, str | int | float) else name
    if name == "sampler" and rules:
        return rules.wrong_sampler(str(given)[:80])
    # pydantic's reasons behind the comma are its own parser's words.
    said = error["msg"].partition(", ")[0] if error["type"] in UNREADABLE else error["msg"]
    return f"{shown} {re.sub('^(Input|String) should', 'must', said.removeprefix('Value error, '))}."


def _readable(values: Mapping[str, object], wrong: Collection[str], rules: ModelRules) -> ParamsRequest:
    """What could be read of the parameters, so that the rules find no fault for want of the others."""
    harmless = {
        "strength": 1.0,
        "num_inference_steps": rules.max_steps,
        "width": rules.size_multiple,
        "height": rules.size_multiple,
    }
    read = {name: value for name, value in values.items() if name in ParamsRequest.model_fields and name not in wrong}
    return ParamsRequest.model_validate(read | {name: value for name, value in harmless.items() if name in wrong})


def is_job_id(text: str) -> bool:
    """Whether `text` has the form of a job's or upload's id."""
    try:
        JOB_ID.validate_python(text)
    except ValidationError:
        return False
    return True


def idempotency_key(header: str | None) -> str | None:
    """The Idempotency-Key, None when there is none. Raises Refusal when it is empty, too long or not printable."""
    if header is None:
        return None
    if not (0 < len(header) <= KEY_CHARS and header.isascii() and header.isprintable()):
        raise Refusal("bad-idempotency-key", f"Idempotency-Key must be 1 to {KEY_CHARS} printable ASCII characters.")
    return header


def wait_s(header: str | None, longest_s: float) -> float:
    """Seconds of a `Prefer: wait=N` (RFC 7240), at most `longest_s`; 0 without one."""
    found = re.search(r"(?:^|[,;\s])wait\s*=\s*\"?(\d{1,9})", header or "", re.IGNORECASE)
    return min(float(found.group(1)), longest_s) if found else 0.0


def openapi_parameters(model: type[BaseModel]) -> list[dict[str, Any]]:
    """The model's fields as OpenAPI query parameters, for routes that read the query themselves."""
    schema = model.model_json_schema()
    required = schema.get("required", [])
    shared = schema.get("$defs", {})
    return [
        {"name": name, "in": "query", "required": name in required, "schema": _inlined(part, shared)}
        for name, part in schema["properties"].items()
    ]


OBJECT: Final[Mapping[str, Any]] = MappingProxyType({"type": "object"})


def openapi_body(media_type: str = "application/json", schema: Mapping[str, Any] = OBJECT) -> dict[str, Any]:
    """A body as OpenAPI describes it, for routes that read theirs themselves."""
    return {"requestBody": {"required": True, "content": {media_type: {"schema": dict(schema)}}}}


def _inlined(part: Any, shared: Mapping[str, Any]) -> Any:
    if isinstance(part, dict):
        if "$ref" in part:
            return _inlined(shared[part["$ref"].rpartition("/")[2]], shared)
        return {key: _inlined(value, shared) for key, value in part.items()}
    return [_inlined(each, shared) for each in part] if isinstance(part, list) else part
