"""What the server accepts besides the document, because proto3 JSON says so: `null` for an absent member, the numbers of enum values, and
64-bit numbers that are not in quotes. The document describes what clients should write."""

import schemathesis


def leniently(schema, components):
    if "properties" in schema:
        members = schema["properties"].items()
        schema["properties"] = {name: leniently(member, components) for name, member in members}
    alternatives = [schema, {"type": "null"}]
    target = components.get(schema.get("$ref", "").split("/")[-1], {})
    if "enum" in target or schema.get("format") in ("int64", "uint64"):
        alternatives.append({"type": "integer"})
    return {"anyOf": alternatives}


@schemathesis.hook
def before_load_schema(context, raw_schema):
    for path in raw_schema["paths"].values():
        for operation in path.values():
            for content in operation.get("requestBody", {}).get("content", {}).values():
                leniently(content["schema"], raw_schema["components"]["schemas"])
