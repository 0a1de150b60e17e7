# Sourced by the end-to-end scripts: one firn process under test, its lake, and a line of result a check.
# shellcheck shell=bash
e2e=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
repo=$(cd "$e2e/../.." && pwd)
peers=$repo/deploy/peers
# shellcheck source=deploy/peers/lib.sh
. "$peers/lib.sh"

FIRN=${FIRN:-$repo/.build/firn}
tool() { python3 -B "$e2e/tool.py" "$@"; }

# --- results -------------------------------------------------------------------------------------------------------------
failed=0
scope=e2e # what a check's name begins with

# result PASS|FAIL|SKIP NAME [DETAIL] prints one check and, for run.sh, appends it to $E2E_RESULTS.
result() {
  local line
  line=$(printf '%-4s  %-72s %s' "$1" "$scope: $2" "${3:-}")
  printf '%s\n' "${line%"${line##*[![:space:]]}"}"
  [ -z "${E2E_RESULTS:-}" ] || printf '%s\t%s\t%s\n' "$1" "$scope: $2" "${3:-}" >>"$E2E_RESULTS"
  [ "$1" != FAIL ] || failed=$((failed + 1))
}

# may_skip STATUS COMMAND: 5 is a peer's own word that it cannot, 3 that it is not to be had here. firn has no such excuse: its
# status 3 means that it could not reach or open something.
may_skip() { [[ $2 == "$peers"/* && ($1 = 3 || $1 = 5) ]]; }

# check NAME COMMAND... passes if COMMAND does.
check() {
  local name=$1 code=0 last
  shift
  "$@" >"$work/check.out" 2>"$work/check.err" || code=$?
  last=$(cat "$work/check.err" "$work/check.out" | grep -v '^[[:space:]]*$' | tail -n 1 | cut -c1-300 || true)
  if [ $code = 0 ]; then
    result PASS "$name"
  elif may_skip $code "$1"; then
    result SKIP "$name" "cannot: ${last#cannot: }"
  else
    result FAIL "$name" "status $code: $last"
    head -n 20 "$work/check.out" | cut -c1-300 | sed 's/^/      /'
  fi
}

# same NAME EXPECTED COMMAND... runs COMMAND, a dump, and passes if it prints EXPECTED byte for byte.
same() {
  local name=$1 want=$2 code=0 last
  shift 2
  "$@" >"$work/same.out" 2>"$work/same.err" || code=$?
  last=$(grep -v '^[[:space:]]*$' "$work/same.err" | tail -n 1 | cut -c1-300 || true)
  if may_skip $code "$1"; then
    result SKIP "$name" "cannot: ${last#cannot: }"
  elif [ $code != 0 ]; then
    result FAIL "$name" "status $code: $last"
  elif cmp -s "$work/same.out" "$want"; then
    result PASS "$name" "$(wc -l <"$want") rows"
  else
    result FAIL "$name" "$(wc -l <"$work/same.out") rows, expected $(wc -l <"$want")"
    tool differ "$want" "$work/same.out" | sed 's/^/      /' || true
  fi
}

# --- the scratch folder --------------------------------------------------------------------------------------------------
work=
stops=() # commands that end what this script started, newest first

# begin NAME makes the scratch folder and sees to it that all is ended and removed whatever happens.
begin() {
  work=$(mktemp -d "${TMPDIR:-/tmp}/firn-e2e-$1.XXXXXX")
  trap finish EXIT
  trap 'exit 130' INT
  trap 'exit 143' TERM
}

finish() {
  local code=$? s log=''
  trap '' INT TERM PIPE # PIPE: whoever read our lines may be gone, and the rest must still be cleaned up
  firn_kill
  for s in "${stops[@]}"; do $s >/dev/null 2>&1 || true; done
  if [ "$code" != 0 ] && [ -s "$work/firn.log" ]; then log=$(tail -n 25 "$work/firn.log" | cut -c1-400); fi
  if [ -n "${E2E_KEEP:-}" ]; then say "kept: $work"; else rm -rf "$work"; fi
  [ -z "$log" ] || say "--- the end of firn's log ($scope):"$'\n'"$log"
  exit "$code"
}

# end is the last line of a script: status 1 if any check failed.
end() { [ "$failed" = 0 ] || exit 1; }

# kafka_start gives the script a broker of its own: sets bootstrap.
kafka_start() {
  stops=("$peers/kafka/stop $work/kafka" "${stops[@]}")
  "$peers/kafka/start" "$work/kafka" >/dev/null
  # shellcheck disable=SC2034 # read by the scripts that source this file
  bootstrap=$(sed -n 's/^bootstrap=//p' "$work/kafka/env")
}

# --- firn ----------------------------------------------------------------------------------------------------------------
firn_pid=
firn_starts=0
firn_catalog=            # the catalog's settings as YAML; empty: a SQLite file
firn_at=()               # how verbs that read lake and log find both; empty: --server
lake_at=()               # how foreign readers find the catalog; empty: the SQLite file

firn_overrides= # YAML of tables.overrides, a list

# firn_config SOURCE TOPICS writes $work/firn.yaml. SOURCE is the source's own line of YAML. Commits and minor optimizing come
# every second or two, so that a short run crosses many of them and kills fall into all stages.
firn_config() {
  data_port=$(free_port)
  admin_port=$(free_port)
  server=http://127.0.0.1:$data_port
  local catalog=${firn_catalog:-"{type: sqlite, name: firn, uri: $work/catalog.db, warehouse: 'file:$work/lake'}"}
  cat >"$work/firn.yaml" <<YAML
data: $work/data
listen: {data: 127.0.0.1:$data_port, admin: 127.0.0.1:$admin_port}
catalog: $catalog
sources:
  - name: e2e
    $1
    topics: ['$2']
    format: ${firn_format:-json}
    schema: auto
    ${firn_shape:-shape: envelope}
    keyless: full_row
tables:
  defaults:
    flush: {interval: 1s}
    optimize: {minor: {interval: 2s}}
  overrides: [$firn_overrides]
YAML
}

# firn_start runs the server in a process group of its own; kills are of the whole group.
firn_start() {
  firn_starts=$((firn_starts + 1))
  printf -- '--- start %d\n' "$firn_starts" >>"$work/firn.log"
  setsid "$FIRN" serve -c "$work/firn.yaml" >>"$work/firn.log" 2>&1 </dev/null &
  firn_pid=$!
}

# firn_kill ends it without a goodbye.
firn_kill() {
  [ -n "$firn_pid" ] || return 0
  kill -KILL -- "-$firn_pid" 2>/dev/null || true
  wait "$firn_pid" 2>/dev/null || true
  firn_pid=
}

# firn_alive tells whether it still runs. It must never end by itself: not under kills of its elder, not on bad input.
firn_alive() { [ -n "$firn_pid" ] && kill -0 "$firn_pid" 2>/dev/null; }

firn_ready() {
  local end=$((SECONDS + 60))
  until curl -fsS -m 5 "http://127.0.0.1:$admin_port/-/ready" >/dev/null 2>&1; do
    if ! firn_alive; then result FAIL "firn serve becomes ready" "the process ended: $(tail -n 1 "$work/firn.log" | cut -c1-300)"; return 1; fi
    if [ $SECONDS -ge $end ]; then
      result FAIL "firn serve becomes ready" "$(curl -sS -m 5 "http://127.0.0.1:$admin_port/-/ready" 2>&1 | tr '\n' ' ' | cut -c1-300)"
      return 1
    fi
    sleep 0.1
  done
}

# firn_stop asks it to drain, and checks that it ends with 0 within the 30 seconds that it promises.
firn_stop() {
  local start=$SECONDS code=0
  firn_alive || { result FAIL "SIGTERM drains, status 0" "it had ended before"; firn_pid=; return 0; }
  kill -TERM "$firn_pid"
  if ! wait_for 31 bash -c "! kill -0 $firn_pid"; then
    result FAIL "SIGTERM drains, status 0" "still running after 30 s"
    firn_kill
    return 0
  fi
  wait "$firn_pid" || code=$?
  firn_pid=
  if [ $code = 0 ]; then result PASS "SIGTERM drains, status 0" "$((SECONDS - start)) s"; else result FAIL "SIGTERM drains, status 0" "status $code"; fi
}

# firn_kills N kills and restarts it N times. The pause before a kill is drawn from 0.05 to 1.5 s: some fall into opening, some
# into polling, commits and optimizing.
firn_kills() {
  local i
  for ((i = 0; i < $1; i++)); do
    sleep "$(awk -v r=$RANDOM 'BEGIN { printf "%.2f", 0.05 + 1.45 * r / 32768 }')"
    firn_alive || { result FAIL "firn runs until it is killed" "it had ended before kill $((i + 1))"; }
    firn_kill
    firn_start
  done
}

# firn_drained TOTAL SECONDS [--loose] waits until every record of every partition is read.
firn_drained() {
  local total=$1 end=$((SECONDS + $2)) state=''
  shift 2
  until state=$("$FIRN" source list --json --server "$server" 2>"$work/drained.err" | tool drained "$total" "$@" 2>>"$work/drained.err"); do
    if ! firn_alive; then result FAIL "reads all records" "firn ended: $(tail -n 1 "$work/firn.log" | cut -c1-300)"; return 1; fi
    if [ $SECONDS -ge $end ]; then result FAIL "reads all records" "${state:-$(tail -n 1 "$work/drained.err")}"; return 1; fi
    sleep 0.3
  done
  result PASS "reads all records" "$state"
}

# table_at FIELD FIELD TABLE: both positions of the table are equal (null only if both are).
table_at() {
  local a b
  read -r a b < <(curl -fsS -m 10 "$server/v1/tables/$3" | tool field "$1" "$2")
  [ -n "$a" ] && [ "$a" = "$b" ]
}

# firn_settle TABLE waits for its last flush, then has it optimized: afterwards the base store holds everything.
firn_settle() {
  wait_for 60 table_at applied flushed "$1" || result FAIL "$1: everything applied is flushed" "not within 60 s"
  check "$1: firn optimize" "$FIRN" optimize "$1" --server "$server"
  # The background optimizer may have been at work on the last flush when it was asked.
  wait_for 60 table_at flushed optimized "$1" || result FAIL "$1: everything flushed is optimized" "not within 60 s"
}

# firn_rows TABLE EXPECTED COLUMNS [FROM...] compares firn's own views with the expected rows.
firn_rows() {
  local table=$1 want=$2 columns=$3 from
  shift 3
  local at=("${firn_at[@]}")
  [ ${#at[@]} != 0 ] || at=(--server "$server")
  for from in "${@:-index}"; do
    same "$table: firn dump --from $from" "$want" "$FIRN" dump "$table" --from "$from" --columns "$columns" "${at[@]}"
  done
}

# lake_rows TABLE EXPECTED COLUMNS asks readers that know nothing of firn; the server may be gone. The table named by keyless
# has no change store. run.sh says in E2E_READERS
# which of them can be had, and names the others once.
lake_rows() {
  local table=$1 want=$2 columns=$3 reader
  local at=("${lake_at[@]}")
  [ ${#at[@]} != 0 ] || at=(--sqlite "$work/catalog.db")
  at+=(--table)
  for reader in ${E2E_READERS-javaiceberg pyiceberg duckdb}; do
    same "$table: $reader" "$want" "$peers/$reader/dump" "${at[@]}" "$table" --columns "$columns"
    [ "$reader" = javaiceberg ] || continue
    check "$table: javaiceberg check, base store" "$peers/javaiceberg/check" "${at[@]}" "$table"
    [ "${keyless:-}" = "$table" ] || check "$table: javaiceberg check, change store" "$peers/javaiceberg/check" "${at[@]}" "${table}_change_"
  done
  # run.sh says whether Amoro can be had: its own merge on read must show the same rows.
  if [ -n "${E2E_AMORO:-}" ]; then
    same "$table: amoro, merged" "$want" "$peers/amoro/amoro" dump --part merged --table "$table" --columns "$columns" \
      --catalog-properties "type=jdbc,uri=jdbc:sqlite:$work/catalog.db,warehouse=$work/lake,name=firn"
  fi
}

# nothing_parked TABLE... holds for tables whose rows are all good.
nothing_parked() {
  local out
  if ! out=$("$FIRN" parked list --json --server "$server" 2>"$work/parked.err" | tool parked "$@" 2>>"$work/parked.err"); then
    result FAIL "no record of these tables is parked" "$(tail -n 1 "$work/parked.err")"
  elif [ -n "$out" ]; then
    result FAIL "no record of these tables is parked" "$(wc -l <<<"$out") parked, first $(head -n 1 <<<"$out" | cut -c1-300)"
  else
    result PASS "no record of these tables is parked"
  fi
}
