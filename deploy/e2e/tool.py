#!/usr/bin/env python3
"""Small readers of files and of firn's JSON for the end-to-end scripts; standard library only.

tool.py count FILE REGEX...         records of a recording whose topic matches a whole REGEX
tool.py topics FILE REGEX           their topics, one a line
tool.py split FILE OUT N lines|bytes  cuts a recording into N plain parts OUT/part-NNNN; bytes: in the middle of lines too
tool.py expected FILE.json OUT      gen_debezium.py's final state as OUT/TABLE.jsonl in the common row form
tool.py columns FILE.jsonl          the column names of the first row, joined by commas
tool.py drained TOTAL [--loose]     reads `firn source list --json`: status 0 once TOTAL records are read; prints how far it is
tool.py parked TABLE...             reads `firn parked list --json`: prints the entries of these tables
tool.py field NAME...               reads one JSON object, prints these fields on one line
tool.py differ WANT GOT             of the first rows that differ in two dumps, their members that do
tool.py framed SAMPLES URL OUT      registers the recorded Avro schemas, one in JSON Schema and one in Protobuf, and writes a recording of events that name them
"""
import base64
import gzip
import json
import os
import re
import sys
import urllib.request

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "peers"))
import rowform  # noqa: E402  (the one place that spells rows)


def lines(path):
    with (gzip.open(path, "rb") if path.endswith(".gz") else open(path, "rb")) as f:
        yield from f


def topics_of(path, patterns):
    wanted = [re.compile(p) for p in patterns]
    known = {}
    for line in lines(path):
        topic = json.loads(line)["topic"]
        if topic not in known:
            known[topic] = any(p.fullmatch(topic) for p in wanted)
        if known[topic]:
            yield topic


def count(path, *patterns):
    print(sum(1 for _ in topics_of(path, patterns)))


def topics(path, *patterns):
    print("\n".join(sorted(set(topics_of(path, patterns)))))


def split(path, out, parts, unit):
    parts = int(parts)
    pieces = list(lines(path))
    if unit == "bytes":
        # A reader that follows a growing file meets half a line at its end.
        pieces = [b"".join(pieces)]
        size = -(-len(pieces[0]) // parts)
        pieces = [pieces[0][i:i + size] for i in range(0, len(pieces[0]), size)]
    else:
        size = -(-len(pieces) // parts)
        pieces = [b"".join(pieces[i:i + size]) for i in range(0, len(pieces), size)]
    os.makedirs(out, exist_ok=True)
    for i, piece in enumerate(pieces):
        with open(os.path.join(out, "part-%04d.jsonl" % i), "wb") as f:
            f.write(piece)


class Number(str):
    """A JSON number with a fraction or an exponent, as its text: rowform.number lays it out."""


def render(v):
    if v is None:
        return "null"
    if isinstance(v, bool):
        return "true" if v else "false"
    if isinstance(v, Number):
        return rowform.number(v)
    if isinstance(v, int):
        return str(v)
    if isinstance(v, str):
        return rowform.text(v)
    if isinstance(v, list):
        return "[" + ",".join(map(render, v)) + "]"
    return "{" + ",".join(rowform.text(k) + ":" + render(v[k]) for k in sorted(v, key=str.encode)) + "}"


def expected(path, out):
    with open(path) as f:
        state = json.load(f, parse_float=Number)
    os.makedirs(out, exist_ok=True)
    for name, table in state["tables"].items():
        # Row form: lines sorted bytewise, which is what LC_ALL=C sort does.
        rows = sorted(render(row).encode() + b"\n" for row in table["rows"])
        with open(os.path.join(out, name + ".jsonl"), "wb") as f:
            f.writelines(rows)


def columns(path):
    with open(path) as f:
        first = f.readline()
    print(",".join(json.loads(first)) if first else "")


def objects(text):
    """The JSON values of text: one document, or one a line."""
    try:
        return [json.loads(text)]
    except ValueError:
        return [json.loads(line) for line in text.splitlines() if line.strip()]


def partitions(v):
    """Every innermost object that tells a lag: a partition of a source, however deep it is nested."""
    if isinstance(v, list):
        for x in v:
            yield from partitions(x)
    elif isinstance(v, dict):
        inner = [p for x in v.values() if isinstance(x, (list, dict)) for p in partitions(x)]
        if inner:
            yield from inner
        elif "lag" in v and "partition" in v:
            yield v


def drained(total, *flags):
    found = list(partitions(objects(sys.stdin.read())))
    lag = sum(int(p["lag"] or 0) for p in found)
    # The next position is the count of what was read: recordings and new topics begin at 0 and have no gaps.
    read = [p.get("position") for p in found]
    known = all(isinstance(r, int) or (isinstance(r, str) and r.isdigit()) for r in read)
    done = sum(int(r) for r in read) if known else None
    print(f"{len(found)} partitions, {done} of {total} records, lag {lag}")
    if not found or lag:
        sys.exit(1)
    if done is not None and done < int(total) and "--loose" not in flags:
        sys.exit(1)


def parked(*tables):
    for entry in (e for v in objects(sys.stdin.read()) for e in (v if isinstance(v, list) else [v])):
        # "applied" marks a report: the row is there, with a value that no column can take as null (the types table has them).
        if isinstance(entry, dict) and entry.get("table") in tables and not entry.get("applied"):
            print(json.dumps({k: entry.get(k) for k in ("table", "topic", "partition", "offset", "reason", "detail")}))


def field(*names):
    v = json.load(sys.stdin)
    print(*(json.dumps(v.get(n)) for n in names))


def differ(want, got):
    a, b = (open(p, encoding="utf-8").read().splitlines() for p in (want, got))
    left, right = [x for x in a if x not in set(b)], [x for x in b if x not in set(a)]
    for i in range(min(4, max(len(left), len(right)))):
        x, y = (left[i] if i < len(left) else None), (right[i] if i < len(right) else None)
        try:
            p, q = json.loads(x or "{}", parse_float=str), json.loads(y or "{}", parse_float=str)
            keys = [k for k in {**p, **q} if p.get(k, ...) != q.get(k, ...)]
            x, y = (json.dumps({k: r[k] for k in keys if k in r}, ensure_ascii=False) if t else "no row" for r, t in ((p, x), (q, y)))
        except ValueError:
            pass
        print(f"want {str(x)[:400]}\n got {str(y)[:400]}")


def framed(samples, url, out):
    """Registers the recorded Avro schemas and writes the create and the update of Confluent's framing with the ids that they got."""
    def register(subject, schema, **more):
        body = json.dumps({"schema": schema, **more}).encode()
        request = urllib.request.Request(f"{url}/subjects/{subject}/versions", body, {"Content-Type": "application/vnd.schemaregistry.v1+json"})
        with urllib.request.urlopen(request, timeout=20) as answer:
            return json.load(answer)["id"]

    schemas = json.load(open(f"{samples}/wire_schemas.json"))["ids"]
    ids = {int(old): register(f"avro-{old}", json.dumps(s["schema"])) for old, s in schemas.items()}
    frame = lambda b: b"\0" + ids[int.from_bytes(b[1:5], "big")].to_bytes(4, "big") + b[5:]
    with open(out, "w") as f:
        for line in open(f"{samples}/wire_avro.jsonl"):
            r = json.loads(line)
            if r["framing"] != "confluent prefix" or r["event"] not in ("create", "update with placeholders"):
                continue
            key, value = (base64.b64encode(frame(b)).decode() for b in (r["key"].encode("latin-1"), base64.b64decode(r["value_b64"])))
            f.write(json.dumps({"topic": r["topic"], "partition": 0, "offset": r["offset"], "timestamp": r["timestamp"], "key_b64": key, "value_b64": value}) + "\n")
        for topic, key, value in (json_schema_event(register), protobuf_event(register)):
            key, value = (base64.b64encode(b).decode() for b in (key, value))
            f.write(json.dumps({"topic": topic, "partition": 0, "offset": 0, "timestamp": 1767225600000, "key_b64": key, "value_b64": value}) + "\n")


def prefix(schema_id):
    return b"\0" + schema_id.to_bytes(4, "big")


def json_schema_event(register):
    """A create whose key and value have JSON Schemas, the value's with a registered reference."""
    integer = {"type": "integer", "connect.type": "int32", "connect.index": 0}
    day = {"$schema": "http://json-schema.org/draft-07/schema#", "title": "io.debezium.time.Date", "type": "integer", "connect.type": "int32"}
    register("json-day", json.dumps(day), schemaType="JSON")
    row = {"type": "object", "title": "json.t.Value", "properties": {"id": integer, "day": {"oneOf": [{"type": "null"}, {"$ref": "day.json"}], "connect.index": 1}}}
    envelope = {"type": "object", "title": "json.t.Envelope", "properties": {
        "after": {"oneOf": [{"type": "null"}, row]}, "source": {"type": "object", "properties": {"connector": {"type": "string"}}}, "op": {"type": "string"}}}
    key = register("json-key", json.dumps({"type": "object", "title": "json.t.Key", "properties": {"id": integer}}), schemaType="JSON")
    value = register("json-value", json.dumps(envelope), schemaType="JSON", references=[{"name": "day.json", "subject": "json-day", "version": 1}])
    event = {"after": {"id": 1, "day": 20454}, "source": {"connector": "postgresql"}, "op": "c"}
    return "e2e.json.t", prefix(key) + b'{"id":1}', prefix(value) + json.dumps(event).encode()


def protobuf_event(register):
    """A create in Protobuf, whose schema imports a registered one; the key is its second message."""
    head = 'syntax = "proto3";\npackage e2e;\n'
    register("protobuf-color", head + "enum Color {\n  NONE = 0;\n  RED = 1;\n}\n", schemaType="PROTOBUF")
    text = head + """import "color.proto";
import "google/protobuf/wrappers.proto";
message Envelope {
  Value after = 1;
  Source source = 2;
  string op = 3;
  message Value {
    int32 id = 1;
    google.protobuf.StringValue name = 2;
    optional sint64 n = 3;
    repeated Color colors = 4;
  }
  message Source {
    string connector = 1;
  }
}
message Key {
  int32 id = 1;
}
"""
    schema = register("protobuf-value", text, schemaType="PROTOBUF", references=[{"name": "color.proto", "subject": "protobuf-color", "version": 1}])
    field = lambda n, b: bytes([n << 3 | 2, len(b)]) + b
    after = b"\x08\x01" + field(2, field(1, "Ž".encode())) + b"\x18\x01" + field(4, b"\x01\x00")
    return "e2e.protobuf.t", prefix(schema) + b"\x02\x02\x08\x01", prefix(schema) + b"\0" + field(1, after) + field(2, field(1, b"postgresql")) + field(3, b"c")


if __name__ == "__main__":
    commands = {f.__name__: f for f in (count, topics, split, expected, columns, drained, parked, field, differ, framed)}
    if len(sys.argv) < 2 or sys.argv[1] not in commands:
        sys.exit(__doc__)
    commands[sys.argv[1]](*sys.argv[2:])
