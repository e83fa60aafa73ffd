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


def used_with(schema):
    """Who uses it, where not everybody does: from "x-when", of all alternatives."""
    said = [one["x-when"] for one in (schema, *schema.get("anyOf", [])) if "x-when" in one]
    values = {}
    for when in said:
        for pointer, words in when.items():
            values.setdefault(pointer, []).extend(w for w in words if w not in values.get(pointer, []))
    return "; ".join(", ".join(w or "a stored data set" for w in words) for words in values.values())


def rows(schema, pointer):
    """A row for each member, those of alternatives under the same pointer."""
    for one in alternatives(schema):
        if one.get("type") == "array" and isinstance(one.get("items"), dict):
            yield from rows(one["items"], pointer + "/*")
        for name, member in one.get("properties", {}).items():
            here = f"{pointer}/{name}"
            default = f"`{json.dumps(member['default'])}`" if "default" in member else "—"
            cells = [f"`{here}`", describe(member), default, member.get("description", ""), used_with(member)]
            if not is_name_alone(member):
                yield "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"
            yield from rows(member, here)


def table(schema):
    lines, seen = [], set()
    for row in rows(schema, ""):
        if row not in seen:
            seen.add(row)
            lines.append(row)
    return "\n".join(["", "| field | value | default | | used with, where not always |", "|---|---|---|---|---|", *lines, ""])


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
