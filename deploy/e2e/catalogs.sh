#!/usr/bin/env bash
# firn with a catalog that is no SQLite file, the catalog's own clients as its judges.
#
#   catalogs.sh sql|rest [--kills N] [--seed S]     a PostgreSQL server; Iceberg's REST catalog. Kills: default 3
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=deploy/e2e/lib.sh
. "$here/lib.sh"

kind=${1:-} kills=3 seed=1
[ $# = 0 ] || shift
while [ $# -gt 0 ]; do
  case $1 in
    --kills) kills=$2; shift 2 ;;
    --seed) seed=$2; shift 2 ;;
    *) die "unknown option $1 (see the head of this file)" ;;
  esac
done
[ -x "$FIRN" ] || die "no $FIRN: run make build"
begin catalogs
RANDOM=$seed
scope="catalog $kind kills=$kills"
secret=hush-$RANDOM$RANDOM

# value FILE KEY prints what a peer's start published.
value() { sed -n "s/^$2=//p" "$1"; }

case $kind in
  sql)
    stops=("$peers/postgres/stop $work/postgres" "${stops[@]}")
    "$peers/postgres/start" "$work/postgres" >/dev/null
    url=$(value "$work/postgres/env" url)
    export FIRN_TEST_POSTGRES=$url
    contract=postgres
    # Logins need no password there; one that is given must not be shown.
    firn_catalog="{type: sql, name: firn, uri: '${url/@/:$secret@}', warehouse: 'file:$work/lake'}"
    lake_at=(--sql "$url")
    ;;
  rest)
    stops=("$peers/restcatalog/stop $work/rest" "${stops[@]}")
    "$peers/restcatalog/start" "$work/rest" >/dev/null
    url=$(value "$work/rest/env" uri)
    export FIRN_TEST_REST=$url FIRN_TEST_REST_DIR=$work/rest
    contract=rest-server
    firn_catalog="{type: rest, uri: '$url', properties: {token: $secret, header.X-Firn: $secret}}"
    lake_at=(--rest "$url")
    ;;
  *) die "usage: catalogs.sh sql|rest (see the head of this file)" ;;
esac
if command -v go >/dev/null; then
  check "the contract of catalogs" go -C "$repo" test -count=1 ./changelog/table -run "TestContract/$contract$|TestPostgres|TestSQLLies"
else
  result SKIP "the contract of catalogs" "no go"
fi
unset FIRN_TEST_POSTGRES FIRN_TEST_REST FIRN_TEST_REST_DIR

# One recording through the file source, in parts and with kills meanwhile.
namespace=dbserver1_public tables=(customers orders) # the third is left out for time
debezium=$repo/ingest/decode/testdata/debezium
recording=$debezium/stream_2000_schema.jsonl.gz
tool expected "$debezium/stream_2000.expected.json" "$work/expected"
topics='dbserver1(\..*)?'
total=$(tool count "$recording" "$topics")
: >"$work/growing.jsonl"
firn_config "file: {path: $work/growing.jsonl, follow: true}" "$topics"
firn_at=(-c "$work/firn.yaml")
check "firn config check" "$FIRN" config check "$work/firn.yaml"

tool split "$recording" "$work/parts" $((kills * 4 + 1)) bytes
feed() {
  local part
  for part in "$work"/parts/*; do
    cat "$part" >>"$work/growing.jsonl"
    sleep 0.3
  done
}
firn_start
feed &
feeder=$!
firn_kills "$kills"
wait "$feeder"
firn_ready || end
firn_drained "$total" 60 --loose || end
names=()
for t in "${tables[@]}"; do names+=("$namespace.$t"); done
for t in "${names[@]}"; do firn_settle "$t"; done
for t in "${tables[@]}"; do
  want=$work/expected/$t.jsonl
  firn_rows "$namespace.$t" "$want" "$(tool columns "$want")" index union merged base
done
nothing_parked "${names[@]}"
check "firn verify, server running" "$FIRN" verify "${firn_at[@]}"

# shows_no_secret: in nothing that firn prints of its catalog.
shows_no_secret() {
  { "$FIRN" config show "$work/firn.yaml" && curl -fsS "$server/v1/lake" && cat "$work/firn.log"; } >"$work/shown" && ! grep -n "$secret" "$work/shown"
}
check "no secret of the catalog is shown" shows_no_secret
firn_stop
check "firn verify --deep, without a server" "$FIRN" verify --deep -c "$work/firn.yaml"

# Readers that speak with the catalog themselves.
amoro=${E2E_AMORO:-}
E2E_AMORO=''
readers=''
for r in ${E2E_READERS-javaiceberg pyiceberg duckdb}; do
  [ "$kind$r" = sqlduckdb ] || readers+="$r " # it opens no such catalog
done
export E2E_READERS=$readers
for t in "${tables[@]}"; do
  want=$work/expected/$t.jsonl
  lake_rows "$namespace.$t" "$want" "$(tool columns "$want")"
  if [ -n "$amoro" ] && [ "$kind" = rest ]; then
    same "$namespace.$t: amoro, merged" "$want" "$peers/amoro/amoro" dump --part merged --table "$namespace.$t" --columns "$(tool columns "$want")" \
      --catalog-properties "type=rest,uri=$url,name=firn"
  fi
done
end
