"""Print the messages of the protocol as TypeScript, from its schema.

The page's modules name them in JSDoc: ``Wire.Trade``, ``Wire.Place``. A
definition that is not a message, such as ``Instrument``, has its own name, and
``Wire.Request`` and ``Wire.Event`` are any message of a client, of the server;
``Wire.Reply`` is one of the server that answers a request.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent))

from exchange.doors.schema import protocol_schema  # noqa: E402

REF = "#/$defs/"
# Any reply, before its type is known: a field that not all have is optional.
REPLY = """
type Keys<U> = U extends unknown ? keyof U : never;
type Field<U, K> = U extends unknown
  ? (K extends keyof U ? U[K] : never) : never;
type Reply = { [K in Keys<Event>]?: Field<Event, K> } & Pick<Event, "type">;
""".strip()
SIMPLE = {
    "string": "string",
    "integer": "number",
    "number": "number",
    "boolean": "boolean",
    "null": "null",
}


def name_of(key: str) -> str:
    """Return the name of a definition: cancel_all -> CancelAll."""
    return "".join(part[:1].upper() + part[1:] for part in key.split("_"))


def type_of(schema: dict[str, Any]) -> str:
    """Return a schema as a type; raises ValueError for one that has none."""
    if "$ref" in schema:
        return name_of(schema["$ref"].removeprefix(REF))
    if "const" in schema:
        return json.dumps(schema["const"])
    if "enum" in schema:
        return " | ".join(json.dumps(value) for value in schema["enum"])
    for key in ("anyOf", "oneOf"):
        if key in schema:
            return " | ".join(type_of(one) for one in schema[key])
    kind = schema.get("type")
    if kind in SIMPLE:
        return SIMPLE[kind]
    if kind == "array":
        return _array(schema)
    if kind == "object":
        return _object(schema)
    if not schema.keys() - {"title", "description"}:
        return "any"
    raise ValueError(f"no type for {schema}")


def _array(schema: dict[str, Any]) -> str:
    if "prefixItems" in schema:
        return f"[{', '.join(map(type_of, schema['prefixItems']))}]"
    return f"({type_of(schema['items'])})[]"


def _object(schema: dict[str, Any]) -> str:
    if "properties" not in schema:
        [values] = schema.get("patternProperties", {}).values() or [
            schema["additionalProperties"]
        ]
        return f"Record<string, {type_of(values)}>"
    required = schema.get("required", ())
    fields = [
        f"  {json.dumps(name)}{'' if name in required else '?'}:"
        f" {type_of(field)};"
        for name, field in schema["properties"].items()
    ]
    return "\n".join(("{", *fields, "}"))


def main() -> None:
    """Print all definitions."""
    print("declare namespace Wire {")
    for key, schema in protocol_schema()["$defs"].items():
        print(f"type {name_of(key)} = {type_of(schema)};")
    print(REPLY, "}", sep="\n")


if __name__ == "__main__":
    main()
