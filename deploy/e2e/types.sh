#!/usr/bin/env bash
# Every type of Iceberg v2, at every place in a row: what firn's own tests leave in a lake, before the readers and Java's check.
#
#   types.sh
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=deploy/e2e/lib.sh
. "$here/lib.sh"

[ $# = 0 ] || die "types.sh takes no arguments"
command -v go >/dev/null || { scope=types result SKIP "the whole part" "no go"; exit 0; }
begin types
scope=types
readers=${E2E_READERS-javaiceberg pyiceberg duckdb}
mkdir "$work/types" "$work/life"

# base LAKE TABLE EXPECTED [LEFT-OUT]: what each reader prints of a table. PyIceberg shows a null list of structs as an empty one:
# for it the columns whose name matches are left out.
base() {
  local lake=$1 table=$2 want=$3 without=${4:-} reader columns
  for reader in $readers; do
    if [ "$reader" = pyiceberg ] && [ -n "$without" ]; then
      columns=$(python3 -c 'import json, re, sys
print(",".join(k for k in json.loads(open(sys.argv[1]).readline()) if not re.search(sys.argv[2], k)))' "$want" "$without")
      python3 -c 'import json, sys
keep = set(sys.argv[2].split(","))
for line in open(sys.argv[1]):
    members = []
    rest, decoder = line.strip()[1:-1], json.JSONDecoder()
    while rest:
        name, at = decoder.raw_decode(rest)
        _, end = decoder.raw_decode(rest, at + 1)
        if name in keep:
            members.append(rest[:end])
        rest = rest[end + 1:]
    print("{" + ",".join(members) + "}")' "$want" "$columns" | LC_ALL=C sort >"$work/part.jsonl"
      same "$table, without $without: $reader" "$work/part.jsonl" "$peers/$reader/dump" --sqlite "$lake" --table "$table" --columns "$columns"
    else
      same "$table: $reader" "$want" "$peers/$reader/dump" --sqlite "$lake" --table "$table"
    fi
  done
  [[ $readers != *javaiceberg* ]] || for store in "$table" "${table}_change_"; do
    check "$store: Java's check --strict" "$peers/javaiceberg/check" --sqlite "$lake" --table "$store" --strict
  done
}

check "every type through log, flush, minor and full" env FIRN_TYPES_DIR="$work/types" go -C "$repo" test -count=1 ./cmd/firn -run '^TestEveryType$'
[ ! -f "$work/types/types.base.jsonl" ] || base "$work/types/catalog.db" shop.types "$work/types/types.base.jsonl" '_value$'

check "flushes, rounds, expiry and evolution, in nested values too" env FIRN_LAKE_DIR="$work/life" go -C "$repo" test -count=1 ./changelog/table -run '^TestLife$'
for table in evolved expired major; do
  [ ! -f "$work/life/$table.base.rows.jsonl" ] || base "$work/life/catalog.db" "db.$table" "$work/life/$table.base.rows.jsonl"
done

if [[ $readers == *javaiceberg* ]]; then
  check "Java writes every type" "$peers/javaiceberg/types" "$work/java"
  check "firn reads what Java wrote" env FIRN_PEER_TYPES="$work/java" go -C "$repo" test -count=1 ./changelog/table -run '^TestForeignTables$'
  check "key hashes of a JDK" env FIRN_TEST_JAVA=java go -C "$repo" test -count=1 ./changelog/mixed -run '^TestHashJDK$'
fi
[ "$failed" = 0 ]
