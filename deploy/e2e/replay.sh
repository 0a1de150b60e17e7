#!/usr/bin/env bash
# Replays one recording through firn and compares what every view of every table shows with the rows that its source held.
#
#   replay.sh [option]... RECORDING            a recording of ingest/testdata/live, or stream_2000_schema
#   replay.sh [option]... --stream FILE EXPECTED.json   one that peers/debezium-data/gen_debezium.py made
#
#   --partitions N   of the topics (default 1); records are dealt out by the key's hash, so only the order of a key is kept
#   --file           through the file source, no Kafka
#   --kills N        while it reads: kill -9 and restart N times, at random
#   --readers        also ask Iceberg's Java library, PyIceberg and DuckDB, and prove the metadata of both stores
#   --partition      the tables have partitions in the lake: by the key, and by columns that updates change
#   --more           also the tables whose comparison has conditions: types, staging (one partition)
#   --seed S         of the random pauses (default 1)
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=deploy/e2e/lib.sh
. "$here/lib.sh"

partitions=1 source='kafka' kills=0 readers='' more='' seed=1 partition='' stream='' expected_json=''
while [ $# -gt 0 ]; do
  case $1 in
    --partitions) partitions=$2; shift 2 ;;
    --file) source='file'; shift ;;
    --kills) kills=$2; shift 2 ;;
    --readers) readers=yes; shift ;;
    --partition) partition=yes; shift ;;
    --more) more=yes; shift ;;
    --seed) seed=$2; shift 2 ;;
    --stream) stream=$2 expected_json=$3; shift 3 ;;
    -*) die "unknown option $1 (see the head of this file)" ;;
    *) break ;;
  esac
done
[ -x "$FIRN" ] || die "no $FIRN: run make build"
begin replay
RANDOM=$seed

live=$repo/ingest/testdata/live debezium=$repo/ingest/decode/testdata/debezium
name=${1:-}
[ -z "$stream" ] || name=${stream##*/} name=${name%%.*}
case $name in
  postgres-json-schemas) prefix=pgs namespace=pgs_public expected=$live/expected/postgres ;;
  postgres-full-identity) prefix=pgi namespace=pgi_public expected=$live/expected/postgres-full ;;
  postgres-flattened)
    prefix=pgf namespace=pgf_public expected=$live/expected/postgres
    # shellcheck disable=SC2034 # firn_config reads it
    firn_shape='shape: flattened
    deletes: rewrite-with-tombstone
    connector: postgresql
    metadata: {__op: op, __table: source.table, __lsn: source.lsn, __source_ts_ms: source.ts_ms}'
    ;;
  mariadb-json-schemas) prefix=mys namespace=mys_shop expected=$live/expected/mariadb ;;
  *) prefix=dbserver1 namespace=dbserver1_public expected=$work/expected ;;
esac
if [ "$prefix" = dbserver1 ]; then
  if [ -z "$stream" ]; then
    [ "$name" = stream_2000_schema ] || die "no recording named '$name'"
    stream=$debezium/stream_2000_schema.jsonl.gz expected_json=$debezium/stream_2000.expected.json
  fi
  recording=$stream
  tool expected "$expected_json" "$expected"
  tables=(customers orders order_items)
else
  recording=$live/$name.jsonl.gz
  tables=(customers products orders order_items docs)
  [ -z "$more" ] || tables+=(types)
fi
# Truncates have no key: with several partitions their order against the rows is lost before firn sees them. Flattened topics have none.
[ -z "$more" ] || [ "$partitions" != 1 ] || [ "$prefix" = dbserver1 ] || [ "$prefix" = pgf ] || tables+=(staging)
# Rows without a key: firn takes updates and deletes of them in one partition only, where they have an order; the PostgreSQL
# recording with the default identity has none of either.
keyless=
case $partitions-$prefix in
  *-dbserver1) ;;
  1-* | *-pgs | *-pgf) keyless=$namespace.events ;;
esac

topics="$prefix(\\..*)?" # the prefix alone is MariaDB's topic of schema changes; transactions and messages come too

if [ -n "$partition" ]; then
  placed=placed
  [ "$prefix" != dbserver1 ] || placed=placed_at
  firn_overrides="
    {match: '.*\.customers', partition: ['bucket(4, id)']},
    {match: '.*\.orders', partition: [status, 'month($placed)']},
    {match: '.*\.order_items', partition: ['truncate(20, qty)']},
    {match: '.*\.products', partition: ['truncate(12, name)']}"
fi

scope="$name $source"
[ -z "$partition" ] || scope+=" partitioned"
[ $source = file ] || scope+=" partitions=$partitions"
[ "$kills" = 0 ] || scope+=" kills=$kills"
total=$(tool count "$recording" "$topics")

# feed gives firn the whole recording; in parts with pauses if it is to be killed meanwhile, since all of it takes a second.
parts=$((kills > 0 ? kills * 4 : 1))
feed() {
  local part
  if [ $source = file ]; then tool split "$recording" "$work/parts" "$parts" bytes; else tool split "$recording" "$work/parts" "$parts" lines; fi
  for part in "$work"/parts/*; do
    if [ $source = file ]; then
      cat "$part" >>"$work/growing.jsonl"
    else
      "$FIRN" replay "$part" --to "$bootstrap" --partitions "$partitions" >>"$work/replay.log" 2>&1
    fi
    [ "$parts" = 1 ] || sleep 0.2
  done
}

if [ $source = file ]; then
  : >"$work/growing.jsonl"
  firn_config "file: {path: $work/growing.jsonl, follow: true}" "$topics"
else
  kafka_start
  firn_config "kafka: {brokers: ['$bootstrap'], group: firn-e2e, start: earliest}" "$topics"
fi
check "firn config check" "$FIRN" config check "$work/firn.yaml"

if [ "$kills" = 0 ]; then
  # The recording as it is, compressed by name.
  if [ $source = file ]; then feed; else "$FIRN" replay "$recording" --to "$bootstrap" --partitions "$partitions" >>"$work/replay.log" 2>&1 || result FAIL "firn replay" "$(tail -n 1 "$work/replay.log")"; fi
  firn_start
else
  firn_start
  feed &
  feeder=$!
  firn_kills "$kills"
  wait "$feeder" || result FAIL "firn replay, in parts" "$(tail -n 1 "$work/replay.log")"
fi
firn_ready || end
loose=()
[ $source = kafka ] || loose=(--loose)
firn_drained "$total" 120 "${loose[@]}" || end

names=()
for t in "${tables[@]}"; do names+=("$namespace.$t"); done
for t in "${names[@]}"; do firn_settle "$t"; done
for t in "${tables[@]}"; do
  want=$expected/$t.jsonl
  firn_rows "$namespace.$t" "$want" "$(tool columns "$want")" index union merged base
done
if [ -n "$keyless" ]; then
  want=$expected/events.jsonl
  firn_settle "$keyless"
  firn_rows "$keyless" "$want" "$(tool columns "$want")" log union merged base
  check "$keyless: firn optimize --type full" "$FIRN" optimize "$keyless" --type full --server "$server"
  firn_rows "$keyless" "$want" "$(tool columns "$want")" base
  names+=("$keyless")
fi
nothing_parked "${names[@]}"
check "firn verify, server running" "$FIRN" verify --server "$server"
firn_stop
check "firn verify --deep, without a server" "$FIRN" verify --deep -c "$work/firn.yaml"
if [ -n "$readers" ]; then
  for t in "${tables[@]}"; do
    want=$expected/$t.jsonl
    lake_rows "$namespace.$t" "$want" "$(tool columns "$want")"
  done
  [ -z "$keyless" ] || lake_rows "$keyless" "$expected/events.jsonl" "$(tool columns "$expected/events.jsonl")"
fi
end
