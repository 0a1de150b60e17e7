#!/usr/bin/env bash
# make e2e: firn against real servers and foreign readers. A line a check, PASS, FAIL or SKIP (reason), the counts at the end;
# status 1 if any check failed. What cannot be had on this machine is skipped by name.
#
#   E2E=full       all recordings in all ways, ten more seeds of generated streams, longer live runs (about an hour)
#   E2E_SECONDS=N  no part is begun after N seconds (default 600, so that all ends within 12 minutes; full: no bound)
#   E2E_KEEP=1     leave the scratch folders
#   ARGS           only the parts whose name matches this regular expression: make e2e ARGS='live'
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=deploy/e2e/lib.sh
. "$here/lib.sh"

only=${1:-.}
full=''
[ "${E2E:-}" != full ] || full=yes
limit=${E2E_SECONDS:-$([ -n "$full" ] && echo 14400 || echo 600)}
part_limit=$([ -n "$full" ] && echo 1200 || echo 300)
scratch=$(mktemp -d "${TMPDIR:-/tmp}/firn-e2e-run.XXXXXX")
child= # the part that runs: it ends its own servers when it is told to
finish() {
  [ -z "$child" ] || { kill -TERM "$child" && wait "$child"; } 2>/dev/null || true
  rm -rf "$scratch"
}
trap finish EXIT
trap 'exit 130' INT
trap 'exit 143' TERM
export E2E_RESULTS=$scratch/results
: >"$E2E_RESULTS"
[ -x "$FIRN" ] || die "no $FIRN: run make build"

# fetch PEER: its own reason for not being there is told once, in a line of its own.
declare -A absent
fetch() {
  local start=$SECONDS code=0
  [ -z "${absent[$1]+x}" ] || return 0
  absent[$1]=''
  "$peers/$1/install" >"$scratch/$1.log" 2>&1 || code=$?
  if [ $code = 0 ]; then
    say "$1: installed, $((SECONDS - start)) s"
  else
    absent[$1]="$(grep -v '^[[:space:]]*$' "$scratch/$1.log" | tail -n 1 | cut -c1-200)"
    absent[$1]=${absent[$1]:-no reason given}
    scope=install result SKIP "$1" "status $code: ${absent[$1]}"
  fi
}

# part NAME "PEER..." SCRIPT ARGUMENT... runs one script unless a server that it needs cannot be had or the time is spent.
part() {
  local name=$1 needs=$2 p code=0 start=$SECONDS before
  shift 2
  [[ $name =~ $only ]] || return 0
  scope=$name
  for p in $needs; do
    fetch "$p"
    if [ -n "${absent[$p]}" ]; then result SKIP "the whole part" "$p: ${absent[$p]}"; return 0; fi
  done
  if [ $SECONDS -ge "$limit" ]; then result SKIP "the whole part" "time: $limit s are spent (E2E_SECONDS)"; return 0; fi
  before=$(grep -c '^FAIL' "$E2E_RESULTS" || true)
  say "=== $name"
  # TERM first: the script then ends its servers itself.
  # In the background, so that Ctrl-C is heard at once; timeout passes the signal on to the script's whole group.
  timeout --kill-after=60 "$part_limit" "$@" &
  child=$!
  wait "$child" || code=$?
  child=
  if [ $code = 124 ]; then
    result FAIL "ends in time" "stopped after $part_limit s"
  elif [ $code != 0 ] && [ "$(grep -c '^FAIL' "$E2E_RESULTS" || true)" = "$before" ]; then
    result FAIL "runs to its end" "status $code"
  fi
  say "=== $name: $((SECONDS - start)) s"
}

missing=''
for program in java javac mvn python3 curl setsid; do command -v $program >/dev/null || missing+=" $program"; done
[ -z "$missing" ] || scope=install result SKIP "what needs these programs" "not on this machine:$missing"
# Readers, once and for all: their first use would otherwise count as a check's time.
export E2E_READERS=
for reader in javaiceberg pyiceberg duckdb; do
  fetch $reader
  [ -n "${absent[$reader]}" ] || E2E_READERS+="$reader "
done

fetch amoro
[ -n "${absent[amoro]}" ] || export E2E_AMORO=yes

recordings=(postgres-json-schemas postgres-full-identity mariadb-json-schemas stream_2000_schema)
more=()
[ -z "$full" ] || more=(--more)
for r in "${recordings[@]}"; do part "file $r" "" "$here/replay.sh" --file "${more[@]}" "$r"; done
for r in "${recordings[@]}"; do part "kafka 3 partitions, kills, readers: $r" kafka "$here/replay.sh" --partitions 3 --kills 5 --readers "${more[@]}" "$r"; done
part "partitioned, file, kills, readers: postgres-full-identity" "" "$here/replay.sh" --file --partition --kills 3 --readers postgres-full-identity
part "flattened, file, kills, readers" "" "$here/replay.sh" --file --kills 3 --readers --more postgres-flattened
part "types" "" "$here/types.sh"
part "schema registry" registry "$here/registry.sh"
part "live" "kafka postgres debezium workload" "$here/live.sh" --seconds 40 --kills 6
part "catalog in PostgreSQL" postgres "$here/catalogs.sh" sql
part "catalog over REST" restcatalog "$here/catalogs.sh" rest
for r in "${recordings[@]}"; do part "kafka 1 partition: $r" kafka "$here/replay.sh" --partitions 1 "${more[@]}" "$r"; done
part "file, kills: postgres-json-schemas" "" "$here/replay.sh" --file --kills 5 postgres-json-schemas

if [ -n "$full" ]; then
  for r in "${recordings[@]}"; do
    part "kafka 1 partition, kills, readers: $r" kafka "$here/replay.sh" --partitions 1 --kills 20 --readers --more --seed 2 "$r"
    part "kafka 3 partitions, 20 kills, readers: $r" kafka "$here/replay.sh" --partitions 3 --kills 20 --readers --more --seed 4 "$r"
    part "file, kills, readers: $r" "" "$here/replay.sh" --file --kills 20 --readers --more --seed 3 "$r"
    part "partitioned, kafka 3 partitions, kills, readers: $r" kafka "$here/replay.sh" --partition --partitions 3 --kills 20 --readers --more --seed 5 "$r"
  done
  for seed in 101 102 103 104 105 106 107 108 109 110; do
    python3 -B "$peers/debezium-data/gen_debezium.py" stream --out "$scratch" --name "seed_$seed" --seed "$seed" --schemas --gzip >/dev/null
    part "generated stream, seed $seed" kafka "$here/replay.sh" --partitions 3 --kills 4 --readers --seed "$seed" \
      --stream "$scratch/seed_$seed.jsonl.gz" "$scratch/seed_$seed.expected.json"
    rm -f "$scratch/seed_$seed".*
  done
  part "live, full identity" "kafka postgres debezium workload" "$here/live.sh" --seconds 120 --kills 20 --identity full --seed 2
  for source in postgres mariadb; do
    for format in json-schemas json avro avro-headers avro-confluent; do
      part "live, $source, $format" "kafka $source debezium workload registry" "$here/live.sh" --source $source --format $format --seconds 60 --kills 10 --seed 6
    done
    for mode in tombstone delete-to-tombstone rewrite rewrite-with-tombstone; do
      part "live, $source, flattened $mode" "kafka $source debezium workload" "$here/live.sh" --source $source --flatten $mode --seconds 60 --kills 10 --seed 7
    done
    part "live, $source, flattened, JSON without schemas" "kafka $source debezium workload" "$here/live.sh" --source $source --flatten rewrite --format json --seconds 60 --kills 10 --seed 8
  done
  part "live, full identity, Avro" "kafka postgres debezium workload registry" "$here/live.sh" --format avro-confluent --identity full --seconds 60 --kills 10 --seed 9
  part "live, one partition" "kafka postgres debezium workload" "$here/live.sh" --seconds 120 --kills 20 --partitions 1 --seed 3
fi

passed=$(grep -c '^PASS' "$E2E_RESULTS" || true)
failures=$(grep -c '^FAIL' "$E2E_RESULTS" || true)
skipped=$(grep -c '^SKIP' "$E2E_RESULTS" || true)
echo
echo "--- end-to-end, $SECONDS s: what did not pass"
grep -E '^(FAIL|SKIP)' "$E2E_RESULTS" | awk -F'\t' '{ printf "%-4s  %s  %s\n", $1, $2, $3 }' || echo "nothing"
echo "e2e: $passed passed, $failures failed, $skipped skipped"
[ "$failures" = 0 ]
