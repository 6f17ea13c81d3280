"""Settings: flags over environment over TOML file over defaults, and where each value came from."""

from __future__ import annotations

import os
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator
from pydantic_settings import BaseSettings, EnvSettingsSource, SettingsConfigDict

from overnight.config_deployments import ContentFilterSettings, DeploymentSettings
from overnight.config_oidc import OidcSettings
from overnight.domain.addresses import Policy, parse_policy
from overnight.domain.deployment import Capacity
from overnight.domain.flavour import Flavour
from overnight.domain.limits import DEFAULTS, LONGEST_LIFE, MIB, Limits

_DAY = 86_400.0
_START_CONCURRENCY = 16

_STORES = ("s3", "az", "gs", "file")


class ConfigError(Exception):
    """The settings cannot be used; ``hint`` says what to do."""

    def __init__(self, message: str, hint: str) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class UpstreamSettings(BaseModel):
    """One OpenAI-compatible server. The key comes from an environment variable or a file, never from here."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    url: str = Field(description="Base URL with its version, such as http://localhost:8000/v1.")
    name: str = Field(default="", description="A name of your own; the host and port if left out.")
    api_key_env: str | None = Field(default=None, description="Environment variable with the key.")
    api_key_file: Path | None = Field(default=None, description="File with the key.")
    max_concurrency: int = Field(
        default=512, ge=1, description="Most requests in flight at once; how many the server bears is found by trying."
    )
    start_concurrency: int | None = Field(
        default=None, ge=1, description="Requests in flight to begin with; 16, or max_concurrency if that is less."
    )
    requests_per_minute: int | None = Field(default=None, ge=1, description="Most requests in any minute.")
    tokens_per_minute: int | None = Field(
        default=None, ge=1, description="Most tokens in any minute, of requests and answers together."
    )
    weight: float = Field(
        default=1.0, gt=0, description="Share of the requests while there are fewer than all upstreams could take."
    )
    timeout: float = Field(default=600.0, gt=0, le=_DAY, description="Seconds until a request is given up.")

    @model_validator(mode="before")
    @classmethod
    def _from_url(cls, value: object) -> object:
        return {"url": value} if isinstance(value, str) else value

    @field_validator("url")
    @classmethod
    def _usable(cls, url: str) -> str:
        parts = urlsplit(url)
        if parts.scheme not in {"http", "https"} or not parts.hostname:
            message = f"`{parts.scheme or url}` is not the start of an http or https URL"
            raise ValueError(message)
        if parts.port == 0:
            message = "port 0 cannot be called"
            raise ValueError(message)
        if parts.username or parts.password:
            message = "a key or password does not belong into the URL; use api_key_env or api_key_file"
            raise ValueError(message)
        return url.rstrip("/")

    @model_validator(mode="after")
    def _bounds_fit(self) -> UpstreamSettings:
        if self.start_concurrency is not None and self.start_concurrency > self.max_concurrency:
            message = "start_concurrency is more than max_concurrency"
            raise ValueError(message)
        return self

    def capacity(self) -> Capacity:
        """Give the bounds of what may be asked."""
        return Capacity(
            max_concurrency=self.max_concurrency,
            start_concurrency=self.start_concurrency or min(_START_CONCURRENCY, self.max_concurrency),
            requests_per_minute=self.requests_per_minute,
            tokens_per_minute=self.tokens_per_minute,
            weight=self.weight,
        )

    @property
    def label(self) -> str:
        """The name under which logs and settings speak of the upstream."""
        return self.name or urlsplit(self.url).netloc

    def api_key(self) -> str | None:
        """Read the key. Raises ``ConfigError`` if it is named but not there, or cannot be a key; it is never quoted."""
        key = self._key_text()
        if key is not None and not (key and key.isascii() and key.isprintable()):
            message = f"the key of the upstream `{self.label}` is not one line of plain characters"
            raise ConfigError(message, f"check {self.api_key_file or self.api_key_env}")
        return key

    def _key_text(self) -> str | None:
        if self.api_key_file is not None:
            try:
                return self.api_key_file.read_text(encoding="latin-1").strip()
            except OSError as error:
                message = f"the key file of the upstream `{self.label}` cannot be read ({error.strerror})"
                raise ConfigError(message, f"check {self.api_key_file}") from error
        if self.api_key_env is None:
            return None
        if self.api_key_env not in os.environ:
            message = f"the key of the upstream `{self.label}` is missing: {self.api_key_env} is not set"
            raise ConfigError(message, f"export {self.api_key_env}=…")
        return os.environ[self.api_key_env].strip()


class LimitSettings(BaseModel):
    """Overrides of the limits of one flavour; what is left out stays at its default."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    requests_per_file: int | None = Field(default=None, ge=1, description="Most requests in an input file.")
    input_file_bytes: int | None = Field(default=None, ge=1, description="Largest batch input file.")
    file_bytes: int | None = Field(default=None, ge=1, description="Largest file of any other purpose.")
    line_bytes: int | None = Field(default=None, ge=1, description="Longest line of an input file.")
    upload_bytes: int | None = Field(default=None, ge=1, description="Largest file put together from parts.")
    upload_part_bytes: int | None = Field(default=None, ge=1, description="Largest part.")
    upload_life: int | None = Field(
        default=None, ge=1, le=LONGEST_LIFE, description="Seconds until an unfinished upload expires."
    )
    uploads_per_minute: int | None = Field(
        default=None,
        ge=0,
        description="Most files and uploads that a resource begins in a minute; 0: any number.",
    )
    pending_uploads: int | None = Field(
        default=None, ge=0, description="Most uploads of a resource that are begun and not ended; 0: any number."
    )
    pending_bytes: int | None = Field(
        default=None, ge=0, description="Most bytes in the parts of these uploads together; 0: any number."
    )
    batches_per_hour: int | None = Field(
        default=None, ge=0, description="Most batches that a resource creates in any hour; 0: any number."
    )
    embedding_inputs: int | None = Field(
        default=None, ge=0, description="Most inputs in all lines of a batch for embeddings; 0: any number."
    )
    files_without_expiry: int | None = Field(
        default=None, ge=0, description="Most files of a resource that never expire; 0: any number."
    )
    files_with_expiry: int | None = Field(
        default=None, ge=0, description="Most files of a resource that expire; 0: any number."
    )
    input_life: int | None = Field(
        default=None,
        ge=0,
        le=LONGEST_LIFE,
        description="Seconds after which a batch input file expires unless its upload says otherwise; 0: never.",
    )
    output_life: int | None = Field(
        default=None,
        ge=0,
        le=LONGEST_LIFE,
        description="Seconds after which an output or error file expires unless its batch says otherwise; 0: never.",
    )

    def over(self, defaults: Limits) -> Limits:
        """Give the limits that are in force."""
        # Where 0 can be given it means never or any number, and none is how the domain says that.
        given = {name: value or None for name, value in self.model_dump().items() if value is not None}
        return Limits(**{name: getattr(defaults, name) for name in defaults.__struct_fields__} | given)


class RateSettings(BaseModel):
    """How often something may be asked for; counted in the memory of each process. 0 is no limit."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    requests_per_minute: int = Field(default=120_000, ge=0, description="Most requests with one key in a minute.")
    concurrent_uploads: int = Field(
        default=64, ge=0, description="Most files and parts that one resource sends at the same time."
    )
    failed_keys_per_minute: int = Field(
        default=120, ge=0, description="Most calls with a wrong key from one address in a minute."
    )


class ConnectionSettings(BaseModel):
    """What one client may do to a connection, and how many there may be."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    most: int = Field(default=4096, ge=1, description="Most connections at the same time.")
    per_address: int = Field(default=1024, ge=1, description="Most connections from one address.")
    head_seconds: float = Field(
        default=20.0, gt=0, le=_DAY, description="Seconds within which the headers of a request must arrive."
    )
    body_seconds: float = Field(
        default=30.0, gt=0, le=_DAY, description="Seconds over which the pace of a body is looked at."
    )
    body_bytes_per_second: int = Field(
        default=1024, ge=0, description="Least pace of a body over body_seconds; 0: any, even none."
    )
    read_seconds: float = Field(
        default=60.0, gt=0, le=_DAY, description="Seconds after which who takes nothing of a reply is cut off."
    )
    idle_seconds: int = Field(
        default=75, ge=1, le=86_400, description="Seconds that a connection is kept open between two requests."
    )
    proxies: tuple[str, ...] = Field(
        default=("127.0.0.1", "::1"),
        description="Addresses and networks of proxies whose X-Forwarded-For is believed.",
    )


class WebhookSettings(BaseModel):
    """Where webhooks may be sent."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    allow: tuple[str, ...] = Field(
        default=(),
        description="Networks such as 10.1.0.0/16, and hosts, that may be reached although they are not public.",
    )

    @field_validator("allow")
    @classmethod
    def _readable(cls, allow: tuple[str, ...]) -> tuple[str, ...]:
        parse_policy(allow)
        return allow

    def policy(self) -> Policy:
        """Give the rule that addresses are put to."""
        return parse_policy(self.allow)


class Settings(BaseSettings):
    """All settings of the service."""

    model_config = SettingsConfigDict(env_prefix="OVERNIGHT_", env_nested_delimiter="__", extra="forbid", frozen=True)

    host: str = Field(default="127.0.0.1", description="Address to listen on; any other than loopback needs keys.")
    port: int = Field(default=8080, ge=0, le=65535, description="Port to listen on; 0 takes a free one.")
    data_dir: Path = Field(default=Path("overnight-data"), description="Folder for the database and all files.")
    results_url: str | None = Field(
        default=None,
        description="Object store for the results of running batches, such as s3://bucket/prefix, az://container/prefix,"
        " gs://bucket/prefix or file:///folder; the data folder if left out.",
    )
    keys_file: Path | None = Field(default=None, description="File with the API keys that are accepted, one a line.")
    oidc: OidcSettings | None = Field(
        default=None, description="Issuer of bearer tokens that are accepted beside keys."
    )
    root_path: str = Field(default="", description="Path prefix that a gateway in front strips off.")
    upstreams: tuple[UpstreamSettings, ...] = Field(
        default=(), description="Model servers; the embedded model if none."
    )
    deployments: tuple[DeploymentSettings, ...] = Field(default=(), description="Names for models, besides their own.")
    content_filters: tuple[ContentFilterSettings, ...] = Field(
        default=(), description="Filters that deployments name as content_filter."
    )
    currency: str = Field(default="USD", min_length=1, max_length=8, description="The currency of all prices.")
    embedded_slots: int = Field(default=4, ge=1, description="Requests that the embedded model answers at once.")
    answer_bytes: int = Field(default=64 * MIB, ge=1, description="Largest answer of an upstream that is kept.")
    strict_suffix: bool = Field(default=False, description="Refuse batch files without any suffix, as OpenAI does.")
    stop_grace: float = Field(
        default=30.0,
        ge=0,
        le=_DAY,
        description="Seconds for running requests after a cancel or at the end of the window.",
    )
    shutdown_grace: float = Field(default=10.0, ge=0, le=_DAY, description="Seconds for running requests at shutdown.")
    limits: dict[Flavour, LimitSettings] = Field(default={}, description="Limits by flavour: openai, azure.")
    rate: RateSettings = Field(default=RateSettings(), description="Limits on how often something may be asked for.")
    connections: ConnectionSettings = Field(default=ConnectionSettings(), description="Limits on connections.")
    webhooks: WebhookSettings = Field(default=WebhookSettings(), description="Where webhooks may be sent.")
    dev: bool = Field(default=False, description="Show every part of the Studio in every state at /studio/_gallery.")
    log_level: Literal["debug", "info", "warning", "error"] = Field(default="info", description="Least level logged.")
    log_format: Literal["text", "json"] = Field(default="text", description="How log lines look.")

    @field_validator("results_url")
    @classmethod
    def _store(cls, url: str | None) -> str | None:
        if url is None:
            return None
        parts = urlsplit(url)
        if parts.scheme not in _STORES:
            message = f"`{parts.scheme or url}` is not the start of the URL of an object store ({', '.join(_STORES)})"
            raise ValueError(message)
        if not parts.netloc and not parts.path.strip("/"):
            message = "the URL names no bucket, container or folder"
            raise ValueError(message)
        if parts.username or parts.password or parts.query:
            message = "credentials do not belong into the URL; they are taken from the environment"
            raise ValueError(message)
        return url

    @model_validator(mode="after")
    def _names_fit(self) -> Settings:
        labels = [upstream.label for upstream in self.upstreams]
        if len(set(labels)) < len(labels):
            message = "two upstreams have the same name; give each a name of its own"
            raise ValueError(message)
        for deployment in self.deployments:
            unknown = sorted(set(deployment.upstreams) - set(labels))
            if unknown:
                message = f"the deployment `{deployment.name}` names the upstream `{unknown[0]}`, which there is not"
                raise ValueError(message)
        return self

    @model_validator(mode="after")
    def _filters_fit(self) -> Settings:
        filters = [each.name for each in self.content_filters]
        if len(set(filters)) < len(filters):
            message = "two content filters have the same name; give each a name of its own"
            raise ValueError(message)
        labels = {upstream.label for upstream in self.upstreams}
        deployments = {each.name: each for each in self.deployments}
        for each in self.content_filters:
            if each.upstream and each.upstream not in labels:
                message = f"the content filter `{each.name}` names the upstream `{each.upstream}`, which there is not"
                raise ValueError(message)
            if each.deployment and each.deployment not in deployments:
                message = f"the content filter `{each.name}` names the deployment `{each.deployment}`, which is not set"
                raise ValueError(message)
            if each.deployment and deployments[each.deployment].content_filter is not None:
                message = f"the deployment `{each.deployment}` answers for a content filter and cannot have one"
                raise ValueError(message)
        for deployment in self.deployments:
            if deployment.content_filter is not None and deployment.content_filter not in filters:
                message = (
                    f"the deployment `{deployment.name}` names the content filter `{deployment.content_filter}`, "
                    "which there is not"
                )
                raise ValueError(message)
        return self

    def limits_by_flavour(self) -> Mapping[Flavour, Limits]:
        """Give the limits that are in force."""
        return {flavour: self.limits.get(flavour, LimitSettings()).over(DEFAULTS[flavour]) for flavour in Flavour}


class LoadedSettings(BaseModel):
    """Settings with the source of each: flag, environment, file or default."""

    model_config = ConfigDict(frozen=True)

    settings: Settings
    sources: Mapping[str, str]


def config_path() -> Path:
    """Say which file is read when no flag names one."""
    named = os.environ.get("OVERNIGHT_CONFIG")
    if named:
        return Path(named)
    here = Path("overnight.toml")
    return here if here.exists() else Path.home() / ".config" / "overnight" / "config.toml"


def load(flags: Mapping[str, object]) -> LoadedSettings:
    """Put the settings together; ``flags`` holds those that were given, and ``config`` for the file.

    Raises:
        ConfigError: a value is wrong or a named file cannot be read.
    """
    given = {name: value for name, value in flags.items() if value not in (None, (), [])}
    named = given.pop("config", None)
    path = Path(str(named)) if named else config_path()
    layers: list[tuple[str, Mapping[str, Any]]] = [
        (f"file {path}", _read(path, required=named is not None or "OVERNIGHT_CONFIG" in os.environ)),
        ("environment", _environment()),
        ("flag", given),
    ]
    values: dict[str, Any] = {}
    sources = dict.fromkeys(Settings.model_fields, "default")
    for source, layer in layers:
        values |= layer
        sources |= dict.fromkeys(layer, source)
    try:
        settings = Settings.model_validate(values)
    except ValidationError as error:
        raise _explain(error, sources) from error
    return LoadedSettings(settings=settings, sources={name: sources[name] for name in Settings.model_fields})


def _environment() -> Mapping[str, Any]:
    try:
        return EnvSettingsSource(Settings)()
    except ValueError as error:
        raise ConfigError(f"an OVERNIGHT_ variable cannot be read: {error}", "overnight help environment") from error


def _read(path: Path, *, required: bool) -> Mapping[str, Any]:
    try:
        return tomllib.loads(path.read_text())
    except (FileNotFoundError, NotADirectoryError) as error:
        if required:
            raise ConfigError(f"the settings file `{path}` does not exist", "name another with --config") from error
        return {}
    except (OSError, tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"the settings file `{path}` cannot be read: {error}", f"check {path}") from error


def _explain(error: ValidationError, sources: Mapping[str, str]) -> ConfigError:
    first = error.errors(include_url=False, include_input=False)[0]
    place = ".".join(str(step) for step in first["loc"])
    source = sources.get(str(first["loc"][0]), "") if first["loc"] else ""
    where = f"`{place}` ({source})" if place else "the settings"
    reason = first["msg"].removeprefix("Value error, ")
    return ConfigError(f"{where}: {reason}", "overnight config show --sources")
