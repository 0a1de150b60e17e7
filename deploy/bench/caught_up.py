#!/usr/bin/env python3
"""caught_up.py SERVER TABLE MESSAGES: status 0 once MESSAGES are read and all of them are flushed and optimized."""
import json
import sys
import urllib.request


def lags(v):
    """Every innermost object with a lag: one a partition."""
    if isinstance(v, list):
        for x in v:
            yield from lags(x)
    elif isinstance(v, dict):
        inner = [p for x in v.values() if isinstance(x, (list, dict)) for p in lags(x)]
        if inner:
            yield from inner
        elif "lag" in v:
            yield v


server, table, messages = sys.argv[1], sys.argv[2], int(sys.argv[3])
try:
    with urllib.request.urlopen(f"{server}/v1/tables/{table}", timeout=5) as answer:
        t = json.load(answer)
except OSError:
    sys.exit(1)  # not up yet, or no such table yet
partitions = list(lags(t.get("sources")))
read = [p.get("position") for p in partitions]
if not partitions or any(p["lag"] for p in partitions) or not t.get("applied"):
    sys.exit(1)
if all(isinstance(r, int) for r in read) and sum(read) < messages:
    sys.exit(1)
sys.exit(0 if t["applied"] == t.get("flushed") == t.get("optimized") else 1)
