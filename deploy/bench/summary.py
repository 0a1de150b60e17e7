#!/usr/bin/env python3
"""summary.py DIR: medians over the runs in DIR (NAME-N.json), and firn's ratios to Flink."""
import collections
import glob
import json
import os
import re
import statistics
import sys


def runs(directory):
    found = collections.defaultdict(list)
    for path in sorted(glob.glob(os.path.join(directory, "*.json"))):
        name = re.sub(r"-\d+\.json$", "", os.path.basename(path))
        try:
            with open(path) as f:
                found[name].append(json.load(f))
        except ValueError:
            print(f"{path}: no JSON, left out")
    return found


def figures(results):
    """Name to the list of values, of every number that all runs tell."""
    keys = set.intersection(*(set(r) for r in results))
    return {k: [r[k] for r in results] for k in keys if all(isinstance(r[k], (int, float)) and not isinstance(r[k], bool) for r in results)}


SHOWN = ["seconds", "records_per_second", "cpu_seconds", "records_per_cpu_second", "broker_cpu_seconds", "others_cpu_seconds", "peak_rss_mib"]

found = {n: [r for r in rs if not r.get("error")] for n, rs in runs(sys.argv[1]).items()}
for name, results in found.items():
    if not results:
        print(f"{name}: no run succeeded")
        continue
    print(f"{name}: median of {len(results)} (least to most)")
    have = figures(results)
    for k in [k for k in SHOWN if k in have] if name.startswith(("firn-", "flink-")) else sorted(have):
        v = have[k]
        print(f"  {k:26} {statistics.median(v):>14,.2f}   ({min(v):,.2f} to {max(v):,.2f})")

flink = found.get("flink-full")
for name in ("firn-full", "firn-default"):
    if flink and found.get(name):
        for k, better in (("records_per_cpu_second", "more"), ("records_per_second", "more"), ("peak_rss_mib", "less")):
            a, b = (statistics.median(r[k] for r in rs) for rs in (found[name], flink))
            print(f"ratio {name} / flink-full, {k} ({better} is better): {a / b:.2f}")
if not flink:
    print("SKIP  ratios to Flink: no run of it")
