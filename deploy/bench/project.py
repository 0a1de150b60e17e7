#!/usr/bin/env python3
"""project.py A,B FILE: the rows of FILE, in the common row form, with these columns only, in order again."""
import json
import sys

columns = sys.argv[1].split(",")
with open(sys.argv[2], encoding="utf-8") as f:
    rows = [{c: r[c] for c in columns} for r in map(json.loads, f)]
lines = [json.dumps(r, ensure_ascii=False, separators=(",", ":"), sort_keys=True).encode() + b"\n" for r in rows]
sys.stdout.buffer.writelines(sorted(lines))
