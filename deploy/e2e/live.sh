#!/usr/bin/env bash
# A real PostgreSQL or MariaDB, Debezium and Kafka under a changing shop (rows and schemas), while firn is killed and restarted at random.
# At the end the database's own rows must be what every view of firn and every other reader shows.
#
#   live.sh [--source postgres|mariadb] [--format json-schemas|json|avro|avro-headers|avro-confluent] [--flatten MODE]
#           [--seconds S] [--rate R] [--kills N] [--partitions P] [--seed N] [--identity default|full]
#
# json has no schemas: firn gets the hints of a recording. avro is Apicurio's framing, from a real registry; MODE is
# ExtractNewRecordState's delete.tombstone.handling.mode.
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=deploy/e2e/lib.sh
. "$here/lib.sh"

source=postgres format=json-schemas flatten='' seconds=40 rate=20 kills=6 partitions=3 seed=1 identity=default
while [ $# -gt 0 ]; do
  case $1 in
    --source) source=$2; shift 2 ;;
    --format) format=$2; shift 2 ;;
    --flatten) flatten=$2; shift 2 ;;
    --seconds) seconds=$2; shift 2 ;;
    --rate) rate=$2; shift 2 ;;
    --kills) kills=$2; shift 2 ;;
    --partitions) partitions=$2; shift 2 ;;
    --seed) seed=$2; shift 2 ;;
    --identity) identity=$2; shift 2 ;;
    *) die "unknown option $1 (see the head of this file)" ;;
  esac
done
[ -x "$FIRN" ] || die "no $FIRN: run make build"
begin live
RANDOM=$seed
scope="live $source $format${flatten:+ flattened $flatten} partitions=$partitions kills=$kills identity=$identity seed=$seed"
case $source in
  postgres) namespace=shop_public connector=postgresql added=lsn position='__lsn: source.lsn' ;;
  mariadb) namespace=shop_shop connector=mariadb added=file,pos,row position='__file: source.file, __pos: source.pos, __row: source.row' ;;
  *) die "--source is postgres or mariadb" ;;
esac
tables=(customers products orders order_items docs types)

kafka_start
stops=("$peers/$source/stop $work/$source" "${stops[@]}")
"$peers/$source/start" "$work/$source" >/dev/null
url=$(sed -n 's/^url=//p' "$work/$source/env")
settings="shape: envelope" converter=$format
case $format in
  json-schemas) ;;
  json)
    "$peers/workload/hints" "$repo/ingest/testdata/live/$source-json-schemas.jsonl.gz" >"$work/hints.json"
    settings+=$'\n'"    hints: $work/hints.json"
    ;;
  avro*)
    stops=("$peers/registry/stop $work/registry" "${stops[@]}")
    "$peers/registry/start" "$work/registry" >/dev/null
    native=$(sed -n 's/^native=//p' "$work/registry/env") registry=$native
    converter=$format:${native/v3/v2} # the converter speaks version 2 of the API
    firn_format=apicurio_avro
    if [ "$format" = avro-confluent ]; then firn_format=confluent_avro registry=$(sed -n 's/^url=//p' "$work/registry/env"); fi
    settings+=$'\n'"    registry: {url: '$registry', apicurio: {id_kind: globalId}}"
    ;;
  *) die "unknown format $format" ;;
esac
flags=(--format "$converter" --transactions true --signal-table debezium_signal --heartbeat 5000 --partitions "$partitions")
if [ -n "$flatten" ]; then
  settings=${settings/envelope/flattened}$'\n'"    deletes: $flatten"$'\n'"    connector: $connector"
  settings+=$'\n'"    metadata: {__op: op, __table: source.table, __source_ts_ms: source.ts_ms, $position}"
  flags+=(--flatten "$flatten" --flatten-fields "op,table,source.ts_ms,$added")
fi
stops=("$peers/debezium/stop $work/connect" "${stops[@]}")
"$peers/debezium/start" "$work/connect" --kafka "$bootstrap" >/dev/null

workload() { "$peers/workload/run" --url "$url" --seed "$seed" --identity "$identity" "$@" >>"$work/workload.log" 2>&1; }
workload --phase setup
"$peers/debezium/connector" "$work/connect" shop "--$source" "$url" "${flags[@]}" >/dev/null

# shellcheck disable=SC2034 # firn_config reads it
firn_shape=$settings
firn_config "kafka: {brokers: ['$bootstrap'], group: firn-e2e, start: earliest}" 'shop\..*'
firn_start
mark=end-of-$seed
incremental=()
[ "$identity" = full ] || [ -n "$flatten" ] || incremental=(--incremental)
workload --phase stream --seconds "$seconds" --rate "$rate" --end-mark "$mark" "${incremental[@]}" &
changes=$!

# Kills are spread over the whole run; firn_kills adds its own random pause to each.
for ((i = 0; i < kills; i++)); do
  sleep "$(awk -v s="$seconds" -v n="$kills" 'BEGIN { p = s / n - 0.75; print (p > 0 ? p : 0) }')"
  firn_kills 1
done
if ! wait "$changes"; then
  result FAIL "the workload runs" "$(tail -n 1 "$work/workload.log")"
  end
fi
firn_ready || end

# The connector writes in the database's order: once the mark is applied all else is on its topics.
marked() { curl -fsS -m 10 "$server/v1/tables/$namespace.debezium_signal/rows/$mark" >/dev/null; }
if wait_for 120 marked; then result PASS "the end mark can be looked up"; else result FAIL "the end mark can be looked up" "not within 120 s"; end; fi
firn_drained 0 60 || end

for t in "${tables[@]}"; do firn_settle "$namespace.$t"; done
for t in "${tables[@]}"; do
  "$peers/workload/dump" --url "$url" "$t" >"$work/$t.jsonl"
  firn_rows "$namespace.$t" "$work/$t.jsonl" "$(tool columns "$work/$t.jsonl")" index union merged base
done
nothing_parked "${tables[@]/#/$namespace.}"
firn_stop
check "firn verify --deep, without a server" "$FIRN" verify --deep -c "$work/firn.yaml"
for t in "${tables[@]}"; do lake_rows "$namespace.$t" "$work/$t.jsonl" "$(tool columns "$work/$t.jsonl")"; done
end
