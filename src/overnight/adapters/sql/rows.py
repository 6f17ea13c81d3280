"""Between records and rows: a column for each field, JSON text for the few fields that are not plain."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

import msgspec

if TYPE_CHECKING:
    from collections.abc import Mapping

Record = TypeVar("Record", bound=msgspec.Struct)

_JSON_FIELDS = frozenset({"metadata", "errors", "usage", "scopes", "event_types"})


def to_row(record: msgspec.Struct) -> dict[str, Any]:
    """Give the column values of a record."""
    return {name: _to_column(name, value) for name, value in msgspec.structs.asdict(record).items()}


def changes(new: msgspec.Struct, old: msgspec.Struct) -> dict[str, Any]:
    """Give the column values in which two records of one type differ."""
    before = msgspec.structs.asdict(old)
    now = msgspec.structs.asdict(new)
    return {name: _to_column(name, value) for name, value in now.items() if value != before[name]}


def to_record(kind: type[Record], row: Mapping[str, Any]) -> Record:
    """Read a record from a row; columns that it has no field for are left out."""
    return msgspec.convert({name: _from_column(name, row[name]) for name in kind.__struct_fields__}, kind)


def _to_column(name: str, value: object) -> object:
    if name in _JSON_FIELDS and value is not None:
        return msgspec.json.encode(value).decode()
    return value


def _from_column(name: str, value: Any) -> Any:  # noqa: ANN401 - a column of any type
    return msgspec.json.decode(value) if name in _JSON_FIELDS and value is not None else value
