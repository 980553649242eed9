"""The protocol as JSON Schema, made from the types that decode it."""

from __future__ import annotations

from functools import cache
from typing import Any

from pydantic import TypeAdapter
from pydantic.json_schema import GenerateJsonSchema
from pydantic_core import core_schema

from orderbook import EVENT_TYPES, PROTOCOL_VERSION, REQUEST_TYPES

DIALECT = "https://json-schema.org/draft/2020-12/schema"


class _Absent(GenerateJsonSchema):
    """Omit defaults of None: an absent field is omitted, never null."""

    def default_schema(
        self, schema: core_schema.WithDefaultSchema
    ) -> dict[str, Any]:
        if "default" in schema and schema["default"] is None:
            return self.generate_inner(_without_null(schema["schema"]))
        return super().default_schema(schema)


def _without_null(schema: Any) -> Any:
    return schema["schema"] if schema["type"] == "nullable" else schema


@cache
def protocol_schema() -> dict[str, Any]:
    """Return the schema of a frame: requests, or events.

    ``$defs`` has each message under its ``type``, any message of a client as
    "request", and any message of the server as "event". The event `tender`,
    whose type is also that of a request, is under "tender_event".
    """
    named: dict[str, Any] = {}
    kinds: dict[str, list[str]] = {"request": [], "event": []}
    for kind, types in (("request", REQUEST_TYPES), ("event", EVENT_TYPES)):
        for name, cls in types.items():
            schema = TypeAdapter(cls).json_schema(
                mode="serialization" if kind == "event" else "validation",
                ref_template="#/$defs/{model}",
                schema_generator=_Absent,
            )
            named |= schema.pop("$defs", {})
            schema["required"] = sorted({*schema.get("required", ()), "type"})
            key = f"{name}_{kind}" if name in named else name
            named[key] = schema
            kinds[kind].append(f"#/$defs/{key}")
    for kind, references in kinds.items():
        named[kind] = {"oneOf": [{"$ref": ref} for ref in references]}
    messages = [{"$ref": f"#/$defs/{kind}"} for kind in kinds]
    frames = [{"type": "array", "minItems": 1, "items": m} for m in messages]
    return {
        "$schema": DIALECT,
        "title": f"Exchange wire protocol, version {PROTOCOL_VERSION}",
        "oneOf": messages + frames,
        "$defs": named,
    }
