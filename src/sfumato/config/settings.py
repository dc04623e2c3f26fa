"""Every setting, where it comes from and what it may be.

Every field is described; docs/settings.md is written from these descriptions and a test fails when one is missing.
"""

import base64
import ipaddress
import itertools
from pathlib import Path
from typing import Literal, Self

from pydantic import AliasChoices, Field, SecretStr, ValidationInfo, field_validator, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from sfumato.net.addresses import Allowed
from sfumato.storage.s3_place import DEFAULT_REGION, S3Place

__all__ = ["Settings"]

DAY_S = 86_400.0
MIB = 1024 * 1024
PROTOCOLS = ("automatic1111", "openai", "replicate")
SCHEMES = {
    "database_url": ("postgresql://", "postgres://"),
    "rates_url": ("valkey://", "valkeys://", "redis://", "rediss://"),
}


class Settings(BaseSettings):
    """Each is read from SFUMATO_<NAME>; command line options go first."""

    model_config = SettingsConfigDict(env_prefix="SFUMATO_", frozen=True, extra="ignore")

    data_dir: Path = Field(Path("sfumato-data"), description="Folder for everything the embedded service keeps.")
    host: str = Field("127.0.0.1", description="Address the gateway listens on.")
    port: int = Field(8000, ge=0, le=65535, description="Port the gateway listens on; 0 picks a free one.")
    public_url: str = Field("", description="Address that links begin with; by default the address of each request.")
    trusted_proxies: str = Field(
        "127.0.0.1,::1",
        description="Addresses and networks of the proxies before the gateway, comma separated: theirs is the word on "
        "a client's address and scheme. `*` trusts everyone.",
    )
    auth: Literal["auto", "open", "keys"] = Field(
        "auto",
        description="Who may ask: `open`: everybody; `keys`: who has a key (`sfumato keys`); `auto`: who has a key, as "
        "soon as there ever was one or SFUMATO_HOST is not loopback.",
    )
    gateways: int = Field(
        1,
        ge=1,
        description="Gateways that share a key's requests a second: each lets its part through, without "
        "SFUMATO_RATES_URL and while what it names does not answer.",
    )
    rates_url: SecretStr = Field(
        SecretStr(""),
        description="Valkey or Redis in which all gateways count a key's requests a second together, as "
        "`valkey://:password@host:6379`, with TLS `valkeys://`. Needs `sfumato[valkey]`.",
    )
    models: Path | None = Field(
        None, description="models.toml or a plain model_names.txt; by default models.toml in the data folder, if there."
    )
    models_cache: Path | None = Field(
        None, description="Folder for what `sfumato models add` fetches; by default huggingface_hub's own cache."
    )
    database_url: SecretStr = Field(
        SecretStr(""),
        description="PostgreSQL database of the job rows, as `postgresql://user:password@host:5432/sfumato`. By "
        "default they are in an SQLite file in the data folder.",
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field("info", description="Least severe line to log.")
    log_format: Literal["text", "json"] = Field("text", description="Log lines for people or for machines.")

    max_upload_bytes: int = Field(20 * MIB, gt=0, description="Largest picture accepted, in bytes.")
    max_input_pixels: int = Field(50_000_000, gt=0, description="Largest picture accepted, in pixels (width x height).")
    max_body_bytes_in_flight: int = Field(
        256 * MIB, gt=0, description="Bytes of request bodies one gateway holds at once; above it answers 503."
    )
    max_wait_s: float = Field(60.0, ge=0, description="Longest `Prefer: wait` that is honoured, in seconds.")
    link_secrets: SecretStr = Field(
        SecretStr(""),
        description="Secrets that sign links, comma separated: the first signs, all verify. By default one is made and "
        "kept in the data folder.",
    )

    webhook_secrets: SecretStr = Field(
        SecretStr(""),
        description="Secrets that sign the webhooks of single jobs, comma separated, as `whsec_<base64>`: all of them "
        "sign, so that a receiver may know any. By default one is made and kept in the data folder (webhook-secret).",
    )
    webhook_allow: str = Field(
        "",
        description="Networks and host names, comma separated, that webhooks may go to although they are not on the "
        "public internet, such as `10.0.0.0/8,receiver`.",
    )

    protocols: str = Field(
        "automatic1111,openai,replicate",
        description="Other services' protocols that the gateway speaks too, comma separated; empty: its own alone.",
    )
    call_wait_s: float = Field(
        600.0,
        gt=0,
        description="Longest that a call of AUTOMATIC1111's or OpenAI's protocol waits for its pictures, in seconds; "
        "proxies before the gateway must wait longer.",
    )
    remote_images: bool = Field(
        False, description="Whether callers may name a picture by its address, which the gateway then fetches."
    )
    remote_images_allow: str = Field(
        "",
        description="Networks and host names, comma separated, that pictures may be fetched from although they are not "
        "on the public internet.",
    )
    remote_images_s: float = Field(20.0, gt=0, description="Longest that fetching a picture may take, in seconds.")

    result_delivery: Literal["proxy", "redirect"] = Field(
        "proxy",
        description="How access links serve pictures: through the gateway, or by a redirect to a short link of the "
        "object store (needs `s3_public_url`).",
    )
    s3_bucket: str = Field(
        "", description="S3 bucket that holds pictures and outcomes; it must exist. By default the data folder does."
    )
    s3_endpoint: str = Field("", description="Address of the S3-compatible store; by default AWS in `s3_region`.")
    s3_public_url: str = Field(
        "",
        description="Address of the store as clients reach it; uploads then go there by themselves. Links are signed "
        "for this host, so a proxy in between must pass the Host header on. By default the gateway serves.",
    )
    s3_region: str = Field(DEFAULT_REGION, description="Region of the bucket.")
    s3_access_key_id: str = Field(
        "", description="Key to the bucket; by default what AWS's own variables or the machine's role say."
    )
    s3_secret_access_key: SecretStr = Field(SecretStr(""), description="Secret of that key.")

    job_wait_s: float = Field(DAY_S, gt=0, description="Longest a job may wait before it fails as expired, in seconds.")
    input_keep_s: float = Field(3 * DAY_S, gt=0, description="How long input pictures are kept, in seconds.")
    log_keep_s: float = Field(7 * DAY_S, gt=0, description="How long the jobs and event logs are kept, in seconds.")
    result_keep_s: float = Field(
        14 * DAY_S, gt=0, description="How long results, outcomes, rows and idempotency keys are kept, in seconds."
    )

    beat_s: float = Field(2.0, gt=0, description="How often a worker tells that it is alive, in seconds.")
    takeover_s: float = Field(
        3.0, gt=0, description="Silence after which a dispatcher's or worker's place is taken over, in seconds."
    )
    broken_wait_s: float = Field(
        600.0, gt=0, description="How long jobs wait for a model that no worker can load before they fail, in seconds."
    )
    drain_s: float = Field(4.0, gt=0, description="How long a leaving worker may finish what it runs, in seconds.")
    threads: int = Field(0, ge=0, description="CPU threads of one worker's model; 0: the cores shared by all workers.")
    workers: int | None = Field(
        None,
        ge=0,
        description="Most workers of one model, where models.toml doesn't say; by default 1, with GPUs as many as "
        "there are.",
    )
    places: int = Field(
        0,
        ge=0,
        description="Most workers that a host runs at once, of all models together; 0: one for each GPU, without any "
        "SFUMATO_WORKERS for each model.",
    )
    gpus: str | None = Field(
        None,
        validation_alias=AliasChoices("sfumato_gpus", "cuda_visible_devices"),
        description="GPUs that this host's workers may hold, one each, as CUDA names them, comma separated; by default "
        "those in CUDA_VISIBLE_DEVICES (empty: none), else all.",
    )
    live_workers: int = Field(1, ge=1, description="Workers that share this host's cores; set by `sfumato up`.")
    scale_down_s: float | None = Field(
        None,
        ge=0,
        description="How long a worker that is not needed any more stays at least, in seconds; by default 300, with "
        "`external` only as long as that saves GPU time.",
    )
    scale_drain_s: float = Field(
        600.0,
        gt=0,
        description="How long a worker that is not needed any more, or whose place another model gets, may finish what "
        "it runs, in seconds; longer than the slowest job.",
    )
    scale_driver: Literal["local", "external"] = Field(
        "local",
        description="Who starts the workers that the controller wants: `sfumato up` and `sfumato workers` (`local`), "
        "or something that asks `/api/scale/{model}`, such as KEDA (`external`).",
    )
    kafka_servers: str = Field(
        "", description="Kafka brokers to begin with, as `host:port`, comma separated; they name the others."
    )
    kafka_replication: int = Field(
        1, ge=1, description="Copies that Kafka keeps of each message; 3 in a cluster of three or more brokers."
    )
    kafka_work_partitions: int = Field(
        16, ge=1, description="Lanes of a model's work queue in Kafka: no more workers of one model get work at once."
    )
    kafka_group_protocol: Literal["auto", "consumer", "classic"] = Field(
        "auto",
        description="How Kafka shares partitions out: `consumer` (KIP-848), `classic`, or `auto`: the first where the "
        "brokers have it and allow SFUMATO_TAKEOVER_S.",
    )
    kafka_security_protocol: Literal["plaintext", "ssl", "sasl_plaintext", "sasl_ssl"] = Field(
        "plaintext", description="How to connect to Kafka."
    )
    kafka_sasl_mechanism: Literal["", "PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"] = Field(
        "", description="How to log in to Kafka, with the `sasl_` protocols."
    )
    kafka_sasl_username: str = Field("", description="Name to log in to Kafka with.")
    kafka_sasl_password: SecretStr = Field(SecretStr(""), description="Password to log in to Kafka with.")
    kafka_ssl_ca: Path | None = Field(
        None, description="File with the certificates that Kafka's are signed by; by default those of the system."
    )
    kafka_ssl_certificate: Path | None = Field(None, description="File with our own certificate, if Kafka asks for it.")
    kafka_ssl_key: Path | None = Field(None, description="File with the key of our own certificate.")
    kafka_home: Path | None = Field(
        None,
        validation_alias=AliasChoices("sfumato_kafka_home", "kafka_home"),
        description="An unpacked Apache Kafka to start brokers from; KAFKA_HOME is read too.",
    )
    benchmark_file: Path | None = Field(
        None, description="If set, each generation appends `model name;seconds;memory in MiB` to this file."
    )
    metrics_dir: Path | None = Field(
        None, description="Folder in which the processes of one host share their metrics; set by `sfumato up`."
    )
    metrics_port: int = Field(
        0,
        ge=0,
        le=65535,
        description="Port, at SFUMATO_HOST, on which a role without HTTP shows `/metrics`; 0: none. With `sfumato up` "
        "one port shows those of all its processes.",
    )
    otlp_endpoint: str = Field(
        "",
        validation_alias=AliasChoices("sfumato_otlp_endpoint", "otel_exporter_otlp_endpoint"),
        description="Address of an OpenTelemetry collector (OTLP over HTTP) that traces are sent to; "
        "OTEL_EXPORTER_OTLP_ENDPOINT is read too. Needs `sfumato[otel]`.",
    )

    @field_validator("data_dir", mode="before")
    @classmethod
    def _named(cls, folder: object) -> object:
        if folder == "":
            raise ValueError("is empty; name a folder (`.` is the one you are in), or leave it out")
        return folder

    @field_validator("public_url", "s3_endpoint", "s3_public_url", "otlp_endpoint")
    @classmethod
    def _no_trailing_slash(cls, url: str) -> str:
        if url and not url.startswith(("http://", "https://")):
            raise ValueError("must begin with http:// or https://")
        return url.rstrip("/")

    @field_validator("database_url", "rates_url")
    @classmethod
    def _of_its_server(cls, url: SecretStr, info: ValidationInfo) -> SecretStr:
        schemes = SCHEMES[str(info.field_name)]
        if url.get_secret_value() and not url.get_secret_value().startswith(schemes):
            raise ValueError(f"must begin with {schemes[0]}; leave it out to do without a server")
        return url

    @field_validator("trusted_proxies")
    @classmethod
    def _addresses(cls, proxies: str) -> str:
        for proxy in filter(None, (each.strip() for each in proxies.split(","))):
            try:
                if proxies != "*":
                    ipaddress.ip_network(proxy)
            except ValueError as error:
                raise ValueError(f"{proxy!r} is no address or network, such as 10.0.0.7 or 10.0.0.0/24") from error
        return proxies

    @field_validator("protocols")
    @classmethod
    def _spoken(cls, given: str) -> str:
        names = [each.strip() for each in given.split(",") if each.strip()]
        if unknown := [name for name in names if name not in PROTOCOLS]:
            raise ValueError(f"{unknown[0]!r} is none of {', '.join(PROTOCOLS)}")
        return ",".join(names)

    @field_validator("webhook_allow", "remote_images_allow")
    @classmethod
    def _reachable(cls, allowed: str) -> str:
        Allowed.parse(allowed)
        return allowed

    @field_validator("webhook_secrets")
    @classmethod
    def _standard(cls, given: SecretStr) -> SecretStr:
        for secret in filter(None, (each.strip() for each in given.get_secret_value().split(","))):
            try:
                key = base64.b64decode(secret.removeprefix("whsec_"), validate=True)
            except ValueError:
                key = b""
            if not secret.startswith("whsec_") or len(key) < 24:
                raise ValueError("must be whsec_ and the base64 of 24 or more random bytes, each of them")
        return given

    @property
    def on_loopback(self) -> bool:
        """Whether the gateway is reached from this machine alone; a name that is no address is taken for not."""
        try:
            return self.host == "localhost" or ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False

    @property
    def rows_file(self) -> Path:
        """The SQLite file of the job rows, where no server has them."""
        return self.data_dir / "rows.sqlite"

    @property
    def rows_address(self) -> str | Path:
        """Where the job rows are: the address of a PostgreSQL database, or an SQLite file."""
        return self.database_url.get_secret_value() or self.rows_file

    @property
    def models_file(self) -> Path:
        """Where the models are listed; in the data folder the list may be missing, or come later."""
        return self.models or self.data_dir / "models.toml"

    @property
    def trouble_with_models(self) -> str:
        """That the list of models which is named is not there, and what to do; "" when it is, or none is named."""
        if self.models is None or self.models.is_file():
            return ""
        return f"SFUMATO_MODELS: there is no file {self.models}; make it, or leave the setting out."

    @property
    def last_models_file(self) -> Path:
        """Where `sfumato up` keeps the last list that was right, for children that start while it is being edited."""
        return self.data_dir / "models.last-good"

    @property
    def s3_place(self) -> S3Place | None:
        """The bucket, when there is one."""
        if not self.s3_bucket:
            return None
        return S3Place(
            bucket=self.s3_bucket,
            endpoint=self.s3_endpoint,
            region=self.s3_region,
            access_key_id=self.s3_access_key_id,
            secret_access_key=self.s3_secret_access_key.get_secret_value(),
            public_url=self.s3_public_url,
        )

    @model_validator(mode="after")
    def _s3_whole(self) -> Self:
        if bool(self.s3_access_key_id) != bool(self.s3_secret_access_key.get_secret_value()):
            raise ValueError("s3_access_key_id and s3_secret_access_key belong together: set both, or none")
        if self.result_delivery == "redirect" and not (self.s3_bucket and self.s3_public_url):
            raise ValueError(
                "result_delivery=redirect needs s3_bucket and s3_public_url, where clients reach the store"
            )
        return self

    @model_validator(mode="after")
    def _lasting_in_order(self) -> Self:
        order = ("job_wait_s", "input_keep_s", "log_keep_s", "result_keep_s")
        for shorter, longer in itertools.pairwise(order):
            if getattr(self, shorter) >= getattr(self, longer):
                raise ValueError(f"{shorter} must be shorter than {longer}: what a job needs must outlast its wait")
        if self.beat_s >= self.takeover_s:
            raise ValueError("beat_s must be shorter than takeover_s, or the living are taken for dead")
        return self
