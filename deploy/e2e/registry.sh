#!/usr/bin/env bash
# A real schema registry (Apicurio's, which speaks Confluent's API, too): its answers as firn's client takes them; and a firn whose
# registry is down when it starts, waits for it, and then has the rows that framed events in Avro, JSON with a JSON Schema and Protobuf make.
#
#   registry.sh
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=deploy/e2e/lib.sh
. "$here/lib.sh"

[ $# = 0 ] || die "registry.sh takes no arguments"
begin registry
# shellcheck disable=SC2034 # result prints it
scope=registry
registry=$work/registry
stops=("$peers/registry/stop $registry" "${stops[@]}")
"$peers/registry/start" "$registry" >/dev/null
url=$(sed -n 's/^url=//p' "$registry/env") native=$(sed -n 's/^native=//p' "$registry/env")
if command -v go >/dev/null; then
  check "ids, content ids, global ids, references, no such schema" env FIRN_TEST_REGISTRY="$url" FIRN_TEST_REGISTRY_NATIVE="$native" \
    go -C "$repo" test -count=1 ./ingest/registry -run '^TestReal$'
fi

# The recorded events of Confluent's framing, a create and an update with values that were not sent, under the ids that this registry gives.
check "schemas are registered" tool framed "$repo/ingest/decode/testdata/debezium" "$url" "$work/framed.jsonl"
"$peers/registry/stop" "$registry" >/dev/null
# shellcheck disable=SC2034 # firn_config reads both
firn_format=confluent_avro firn_shape="registry: {url: '$url'}
    routes:
      - {topic: 'e2e\.json\.t', table: e2e.json, format: confluent_jsonschema}
      - {topic: 'e2e\.protobuf\.t', table: e2e.protobuf, format: confluent_protobuf}
      - {topic: 'avro\.public\.customers', table: avro_public.customers}"
firn_config "file: {path: $work/framed.jsonl}" '.*'
check "firn config check" "$FIRN" config check "$work/firn.yaml"
firn_start
waits() { curl -fsS -m 5 "$server/v1/sources" 2>/dev/null | grep -q 'schema registry is unavailable'; }
for ((i = 0; i < 100; i++)); do
  if waits; then break; fi
  sleep 0.2
done
check "the registry is down: reading waits and says so" waits
"$peers/registry/start" "$registry" >/dev/null
row() { "$FIRN" dump avro_public.customers --from index --server "$server" 2>/dev/null; }
for ((i = 0; i < 150; i++)); do
  if row | grep -q '"id":1'; then break; fi
  sleep 0.2
done
echo '{"amt":"-1.50","id":1,"name":"Ž","raw":"0001","small":-7,"ts":"2026-01-01T00:00:00.000001"}' >"$work/want.jsonl"
same "it is back: the row" "$work/want.jsonl" row
echo '{"day":"2026-01-01","id":1}' >"$work/want.json.jsonl"
echo '{"colors":["RED","NONE"],"id":1,"n":-1,"name":"Ž"}' >"$work/want.protobuf.jsonl"
for wire in json protobuf; do
  row() { "$FIRN" dump "e2e.$wire" --from index --server "$server" 2>/dev/null; }
  for ((i = 0; i < 150; i++)); do
    if row | grep -q '"id":1'; then break; fi
    sleep 0.2
  done
  same "the row in $wire" "$work/want.$wire.jsonl" row
done
nothing_parked avro_public.customers e2e.json e2e.protobuf
end
