#!/usr/bin/env bash
# make bench: firn and Flink over one topic of a real Kafka on this machine, turn about, then firn's own ingest and lookup
# benchmarks. Only ratios of runs beside each other say something: broker, systems and measurement share the cores.
#
#   run.sh [--records N] [--runs R] [--bytes B] [--out DIR]      defaults 1000000, 3, 500, a scratch folder
#
# Prints medians and ratios; every run's own JSON is left in --out. What cannot be had is skipped by name. Status 1 if a run failed
# or if firn's base table does not hold the rows that the load must leave.
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
repo=$(cd "$here/../.." && pwd)
peers=$repo/deploy/peers
# shellcheck source=deploy/peers/lib.sh
. "$peers/lib.sh"
FIRN=${FIRN:-$repo/.build/firn}
records=1000000 runs=3 bytes=500 out=''
while [ $# -gt 0 ]; do
  case $1 in
    --records) records=$2; shift 2 ;;
    --runs) runs=$2; shift 2 ;;
    --bytes) bytes=$2; shift 2 ;;
    --out) out=$2; shift 2 ;;
    *) die "unknown option $1 (see the head of this file)" ;;
  esac
done
[ -x "$FIRN" ] || die "no $FIRN: run make build"
work=$(mktemp -d "${TMPDIR:-/tmp}/firn-bench.XXXXXX")
out=${out:-$work/out}
mkdir -p "$out"
out=$(cd "$out" && pwd)
# shellcheck disable=SC2317 # called by the trap
finish() {
  local code=$?
  trap '' INT TERM PIPE
  "$peers/flink/stop" "$work/flink-now" >/dev/null 2>&1 || true
  "$peers/kafka/stop" "$work/kafka" >/dev/null 2>&1 || true
  rm -rf "$work"
  exit "$code"
}
trap finish EXIT
trap 'exit 130' INT
trap 'exit 143' TERM
status=0

skip() { echo "SKIP  $1: $2"; }
can() {
  local code=0
  "$peers/$1/install" >"$work/$1.install" 2>&1 || code=$?
  [ $code = 0 ] || { skip "$1" "cannot be had here (status $code): $(grep -v '^[[:space:]]*$' "$work/$1.install" | tail -n 1 | cut -c1-200)"; return 1; }
}

# ---- lookups need no broker -------------------------------------------------------------------------------------------
for ((i = 1; i <= runs; i++)); do
  "$FIRN" bench lookup --json >"$out/lookup-$i.json" 2>"$out/lookup-$i.log" || { echo "FAIL  firn bench lookup: $(tail -n 1 "$out/lookup-$i.log")"; status=1; }
done

if ! can kafka || ! can load; then
  python3 -B "$here/summary.py" "$out"
  exit "$status"
fi
"$peers/kafka/start" "$work/kafka" >/dev/null
bootstrap=$(sed -n 's/^bootstrap=//p' "$work/kafka/env")

# Two loads of the same rows: with the default replica identity, which is what most topics have and Flink cannot read, and with
# the full one for both.
topic=bench.public.events
for identity in default full; do
  "$peers/load/fill" --bootstrap "$bootstrap" --topic "$identity.$topic" --shape debezium --bytes "$bytes" --records "$records" \
    --identity "$identity" --rows "$work/$identity.unsorted" >"$out/$identity.load"
  LC_ALL=C sort "$work/$identity.unsorted" >"$work/$identity.rows"
  rm "$work/$identity.unsorted"
done

# ---- ingest alone: Kafka to durable log and index ---------------------------------------------------------------------------
for ((i = 1; i <= runs; i++)); do
  "$FIRN" bench ingest --kafka "$bootstrap" --topic "default.$topic" --json >"$out/ingest-$i.json" 2>"$out/ingest-$i.log" ||
    { echo "FAIL  firn bench ingest: $(tail -n 1 "$out/ingest-$i.log")"; status=1; }
done

# ---- keyed upserts into Iceberg, all the way: nothing left to flush or to optimize -----------------------------------------------
# What is compared. Without a schema times are what their JSON is, so those two columns are left out.
columns=amount,city,customer_id,id,note,quantity,status

# firn_run IDENTITY NUMBER
firn_run() {
  local identity=$1 dir=$work/firn-$1-$2 data admin table=${1}_bench_public.events
  local load="$out/$identity.load"
  data=$(free_port) admin=$(free_port)
  cat >"$work/firn.yaml" <<YAML
data: $dir/data
listen: {data: 127.0.0.1:$data, admin: 127.0.0.1:$admin}
catalog: {type: sqlite, name: firn, uri: $dir/catalog.db, warehouse: 'file:$dir/lake'}
sources:
  - name: bench
    kafka: {brokers: ['$bootstrap'], group: bench-$identity-$2, start: earliest}
    topics: ['$identity\\.bench\\.public\\.events']
    routes: [{topic: '.*', table: '$table'}]
tables:
  defaults:
    flush: {interval: 5s}
    optimize: {minor: {interval: 10s}}
YAML
  python3 -B "$peers/load/measure" --system command --dir "$dir" --kafka-dir "$work/kafka" --load "$load" --poll 0.5 --limit 900 \
    --note "$identity identity" --until "python3 -B '$here/caught_up.py' http://127.0.0.1:$data $table $(messages "$load")" -- \
    "exec '$FIRN' serve -c '$work/firn.yaml'" >"$out/firn-$identity-$2.json" || { echo "FAIL  firn, $identity identity, run $2: $(tail -n 1 "$dir/measure.log")"; status=1; return 0; }
  # A fast answer that is wrong is no answer.
  if ! cmp -s <("$FIRN" dump "$table" --from base --columns "$columns" -c "$work/firn.yaml") <(python3 -B "$here/project.py" "$columns" "$work/$identity.rows"); then
    echo "FAIL  firn, $identity identity, run $2: the base table does not hold the expected rows; its figures do not count"
    mv "$out/firn-$identity-$2.json" "$out/firn-$identity-$2.json.wrong"
    status=1
  fi
  rm -rf "$dir"
}

# flink_rows RUN: the table that Flink has left holds the rows of the load, read by Iceberg's own library.
flink_rows() {
  local metadata
  metadata=$(find "$work/flink-now" -name '*.metadata.json' -printf '%T@ %p\n' | sort -n | tail -n 1 | cut -d' ' -f2-)
  if cmp -s <("$peers/javaiceberg/dump" --metadata "$metadata" --columns "$columns") <(python3 -B "$here/project.py" "$columns" "$work/full.rows"); then
    echo "ok    flink, run $1: its rows are those of the load"
  else
    echo "FAIL  flink, run $1: its rows are not those of the load"
    status=1
  fi
}

messages() { python3 -c 'import json, sys; print(json.loads(open(sys.argv[1]).read().splitlines()[-1])["messages"])' "$1"; }

flink=yes
can flink || flink=''
for ((i = 1; i <= runs; i++)); do
  firn_run default "$i"
  firn_run full "$i"
  if [ -n "$flink" ]; then
    rm -rf "$work/flink-now"
    python3 -B "$peers/load/measure" --system flink --dir "$work/flink-now" --kafka "$bootstrap" --kafka-dir "$work/kafka" --load "$out/full.load" \
      --interval-ms 5000 --limit 900 --note "full identity" >"$out/flink-full-$i.json" || { echo "FAIL  flink, run $i: $(tail -n 1 "$work/flink-now/measure.log")"; status=1; }
    flink_rows "$i"
    rm -rf "$work/flink-now"
  fi
done

python3 -B "$here/summary.py" "$out"
exit "$status"
