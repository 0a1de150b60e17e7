#!/usr/bin/env bash
# make bench-compare: Go benchmarks of BASE and of this tree in alternating runs, judged by benchstat, and BASE against itself: what
# differs there is noise, and within it there is no difference.
#   BASE=HEAD PKG=./... BENCH=. RUNS=10 BENCHTIME=1s deploy/bench/compare.sh [go test flag]...
set -euo pipefail
repo=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
cd "$repo"
base=${BASE:-HEAD} pkg=${PKG:-./...} bench=${BENCH:-.} runs=${RUNS:-10} time=${BENCHTIME:-1s}
work=$(mktemp -d "${TMPDIR:-/tmp}/firn-compare.XXXXXX")
trap 'git -C "$repo" worktree remove --force "$work/base" 2>/dev/null || true; rm -rf "$work"' EXIT
trap 'exit 130' INT TERM
git worktree add --quiet --detach "$work/base" "$base"

# run FOLDER FILE appends one round; a package without that benchmark is no error.
run() { (cd "$1" && go test -run '^$' -bench "$bench" -benchmem -benchtime "$time" -count 1 "${flags[@]}" "$pkg") >>"$work/$2"; }
flags=("$@")
for ((i = 1; i <= runs; i++)); do
  printf 'run %d of %d\n' "$i" "$runs" >&2
  run "$work/base" "base.txt"
  run . "new.txt"
  run "$work/base" "again.txt"
done
judge() { go tool -modfile=deploy/tools/go.mod benchstat "base=$work/$1" "$2=$work/$3"; }
echo "--- noise: $base against itself"
judge base.txt again again.txt
echo "--- $base against this tree"
judge base.txt new new.txt
