#!/usr/bin/env bash
# make interop: the matrix of table shapes, read by firn, the second reader, the model and foreign readers. A line a cell, ok, RED or
# SKIP, and a total; status 1 if any is red. What cannot be had on this machine is skipped by name, and counted.
#
#   INTEROP=small|default|full  cells: each value of each dimension; all pairs; the whole cross (hours). Default: default
#   --seeds 1-5                 seeds of the histories; one: --seeds 3
#   --cells REGEXP              only the cells whose line matches: --cells 'key=int part=day'
#   --readers 'NAME…'           of javaiceberg check pyiceberg duckdb spark amoro; '' for none. Default: all
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=deploy/peers/lib.sh
. "$here/../peers/lib.sh"

export INTEROP_SIZE=${INTEROP:-default} INTEROP_SEEDS=1-5 INTEROP_CELLS='' INTEROP_READERS='' INTEROP_ABSENT=''
wanted='javaiceberg check pyiceberg duckdb spark amoro'
while [ $# -gt 0 ]; do
  case $1 in
    --seeds) INTEROP_SEEDS=$2; shift 2 ;;
    --cells) INTEROP_CELLS=$2; shift 2 ;;
    --readers) wanted=$2; shift 2 ;;
    *) die "unknown option $1; the head of $0 lists them" ;;
  esac
done
case $INTEROP_SIZE in small | default | full) ;; *) die "INTEROP=$INTEROP_SIZE: small, default or full" ;; esac

scratch=$(mktemp -d "${TMPDIR:-/tmp}/firn-interop.XXXXXX")
trap 'rm -rf "$scratch"' EXIT
for reader in $wanted; do
  peer=$reader
  [ "$reader" != check ] || peer=javaiceberg
  code=0
  "$here/../peers/$peer/install" >"$scratch/$peer.log" 2>&1 || code=$?
  if [ $code = 0 ]; then
    INTEROP_READERS+=" $reader"
  else
    INTEROP_ABSENT+=" $reader"
    say "SKIP  $reader: status $code: $(grep -v '^[[:space:]]*$' "$scratch/$peer.log" | tail -n 1 | cut -c1-200)"
  fi
done

# The test binary writes as it goes; go test would hold its lines back until the end.
cd "$here"
go test -c -o "$scratch/interop.test" .
"$scratch/interop.test" -test.run '^TestMatrix$' -test.timeout 24h
