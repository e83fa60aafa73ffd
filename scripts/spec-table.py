#!/usr/bin/python3
"""The table of docs/spec.md from the JSON Schema of a spec.

usage: ovrctl schema | scripts/spec-table.py docs/spec.md     replaces what follows the mark in that file
"""
import json
import sys

MARK = "don't edit below -->\n"


def number(value):
    return str(int(value)) if value == int(value) else repr(value)


def bounds(schema, word):
    low, above = schema.get("minimum"), schema.get("exclusiveMinimum")
    high = schema.get("maximum")
    if high is not None and float(high) >= 1e30:
        high = None
    if low is None and above is None and high is None:
        return word
    if above is not None and high is None:
        return f"{word} > {number(above)}"
    if above is not None:
        return f"{word} > {number(above)}, ≤ {number(high)}"
    return f"{word} {number(low)}…{number(high)}" if high is not None else f"{word} ≥ {number(low)}"


def alternatives(schema):
    """Without the brackets of anyOf."""
    if "anyOf" in schema:
        return [a for inner in schema["anyOf"] for a in alternatives(inner)]
    return [schema]


def describe(schema):
    """What a value may be, in a few words."""
    words = []
    for one in alternatives(schema):
        kind = one.get("type")
        if "enum" in one:
            words += [f"`{json.dumps(v)}`" for v in one["enum"]]
        elif "const" in one:
            words.append(f"`{json.dumps(one['const'])}`")
        elif kind == "object":
            members = list(one.get("properties", {}))
            words.append(f'`{{"{members[0]}": …}}`' if len(members) == 1 else "object")
        elif kind == "array":
            words.append("array of " + describe(one["items"]) if one.get("items") else "array")
        elif kind == "string":
            words.append(f"text of at most {one['maxLength']}" if "maxLength" in one else "text")
        elif kind in ("integer", "number"):
            words.append(bounds(one, "whole number" if kind == "integer" else "number"))
        elif kind == "null":
            words.append("`null`")
        elif kind:
            words.append(kind)
    return ", ".join(dict.fromkeys(words))


def is_name_alone(schema):
    """{"glorot": true} says no more than "glorot"."""
    return all(one.get("const") is True or one.get("maxProperties") == 0 for one in alternatives(schema))


def unused(schema):
    """{pointer: kinds of model that refuse it}, from the conditions on the kind."""
    found = {}

    def walk(then, pointer, kind):
        for name, inner in then.get("properties", {}).items():
            if inner is False:
                found.setdefault(f"{pointer}/{name}", set()).add(kind)
            else:
                walk(inner, f"{pointer}/{name}", kind)
        for inner in then.get("allOf", []):
            walk(inner, pointer, kind)

    for condition in schema.get("allOf", []):
        text = json.dumps(condition.get("if", {}))
        for kind in schema["properties"]["model"]["properties"]["kind"]["enum"]:
            if f'"kind": {{"const": "{kind}"}}' in text:
                walk(condition.get("then", {}), "", kind)
    return found


def rows(schema, pointer, refused, kinds):
    """A row for each member, those of alternatives under the same pointer."""
    for one in alternatives(schema):
        if one.get("type") == "array" and isinstance(one.get("items"), dict):
            yield from rows(one["items"], pointer + "/*", refused, kinds)
        for name, member in one.get("properties", {}).items():
            here = f"{pointer}/{name}"
            default = f"`{json.dumps(member['default'])}`" if "default" in member else "—"
            used = [k for k in kinds if k not in refused.get(here, ())]
            only = "" if len(used) == len(kinds) else ", ".join(used)
            cells = [f"`{here}`", describe(member), default, member.get("description", ""), only]
            if not is_name_alone(member):
                yield "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"
            yield from rows(member, here, refused, kinds)


def table(schema):
    kinds = schema["properties"]["model"]["properties"]["kind"]["enum"]
    lines, seen = [], set()
    for row in rows(schema, "", unused(schema), kinds):
        if row not in seen:
            seen.add(row)
            lines.append(row)
    return "\n".join(["", "| field | value | default | | kinds, where not all |", "|---|---|---|---|---|", *lines, ""])


def main(path):
    with open(path, encoding="utf-8") as file:
        text = file.read()
    head, mark, _ = text.partition(MARK)
    if not mark:
        sys.exit(f"{path} has no line that ends with {MARK!r}")
    with open(path, "w", encoding="utf-8") as file:
        file.write(head + mark + table(json.load(sys.stdin)))


if __name__ == "__main__":
    main(sys.argv[1])
