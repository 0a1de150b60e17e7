package ingest_test

import (
	"bytes"
	"testing"

	"firn/changelog"
	"firn/ingest"
	"firn/logstore"
	"firn/state"
)

// parkedRows returns the rows of the table of parked records of a namespace, by offset: values by column names.
func parkedRows(t *testing.T, store *logstore.Store, reg *state.Registry, namespace string) map[int64]map[string]changelog.Value {
	t.Helper()
	out := map[int64]map[string]changelog.Value{}
	table, ok := reg.Table(namespace + ".parked")
	if !ok {
		return out
	}
	snap, err := store.Snapshot(t.Context(), table.ID)
	if err != nil {
		t.Fatal(err)
	}
	defer snap.Close()
	schema := table.Schema()
	for e, err := range snap.Rows(nil, nil) {
		if err != nil {
			t.Fatal(err)
		}
		values, err := changelog.AppendValues(nil, schema, bytes.Clone(e.Row))
		if err != nil {
			t.Fatal(err)
		}
		row := map[string]changelog.Value{}
		for i, c := range schema.Columns {
			row[c.Name] = values[i]
		}
		out[row["offset"].I] = row
	}
	return out
}

// checkParkedTable holds the table of parked records against the records that are parked, and returns the states by offset: what
// is parked has a row that says so, with its bytes, and what has another row is not.
func checkParkedTable(t *testing.T, store *logstore.Store, reg *state.Registry, namespace string) map[int64]string {
	t.Helper()
	rows := parkedRows(t, store, reg, namespace)
	states := map[int64]string{}
	waits := 0
	for offset, row := range rows {
		states[offset] = string(row["state"].B)
		switch states[offset] {
		case logstore.ParkedWaits, logstore.ParkedReport, logstore.ParkedSuperseded:
			waits++
		}
	}
	parked := 0
	for p, err := range store.ParkedAll(t.Context()) {
		if err != nil {
			t.Fatal(err)
		}
		parked++
		row := rows[p.Position.Offset]
		want := logstore.ParkedWaits
		mark, ok, err := store.StaleMark(p.Table, p.Key)
		switch {
		case err != nil:
			t.Fatal(err)
		case p.Applied:
			want = logstore.ParkedReport
		case p.Key != nil && (!ok || p.ID < mark.First):
			want = logstore.ParkedSuperseded
		}
		if got := states[p.Position.Offset]; got != want {
			t.Errorf("record %d at offset %d is %s, its row %q", p.ID, p.Position.Offset, want, got)
			continue
		}
		if uint64(row["id"].I) != p.ID || !bytes.Equal(row["record_key"].B, p.RecordKey) || !bytes.Equal(row["record_value"].B, p.RecordValue) ||
			string(row["reason"].B) != p.Reason || string(row["message"].B) != p.Detail || row["parked_at"].I != p.Time || row["attempts"].I != int64(p.Attempts) {
			t.Errorf("record %+v, its row %v", p, row)
		}
	}
	if waits != parked {
		t.Errorf("%d records are parked, %d rows say so", parked, waits)
	}
	return states
}

var parkedTable = logstore.ParkedTable{Name: "parked", Target: ingest.TableName, Rule: ingest.Rule}
