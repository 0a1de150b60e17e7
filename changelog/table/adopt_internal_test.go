package table

import (
	"strings"
	"testing"

	"firn/changelog/mixed"
)

// TestBadFile: what adoption refuses a file for.
func TestBadFile(t *testing.T) {
	file := func(name string, content Content) *File {
		f := &File{Path: "/data/" + name, Content: content, Format: "PARQUET"}
		var err error
		if f.Info, err = mixed.ParseChange(f.Path, 7); err != nil {
			t.Fatal(err)
		}
		return f
	}
	orc := file("1-I-0-00000-0-1-00001.orc", Data)
	orc.Format = "ORC"
	for _, c := range []struct {
		kind string
		last int64
		file *File
		want string // a part; empty: it is fine
	}{
		{mixed.StoreChange, 7, file("5-I-0-00000-0-1-00001.parquet", Data), ""},
		{mixed.StoreChange, 7, file("5-ED-7-00000-0-1-00001.parquet", Data), ""},
		{mixed.StoreChange, 7, file("foreign.parquet", Data), ""}, // inserts at the root, to every reader
		{mixed.StoreBase, 7, file("5-B-7-00000-0-1-00001.parquet", Data), ""},
		{mixed.StoreBase, 7, file("5-PD-7-00000-0-1-00001.parquet", PositionDeletes), ""},
		{mixed.StoreBase, -1, file("1-B-9-00000-0-1-00001.parquet", Data), ""}, // without a key nothing is ordered by transactions
		{mixed.StoreChange, 7, orc, "it is ORC"},
		{mixed.StoreChange, 7, file("5-PD-0-00000-0-1-00001.parquet", PositionDeletes), "Iceberg delete file in a change store"},
		{mixed.StoreChange, 7, file("5-B-0-00000-0-1-00001.parquet", Data), "named as a B file"},
		{mixed.StoreChange, 7, file("5-PD-0-00000-0-1-00001.parquet", Data), "named as a PD file"},
		{mixed.StoreChange, 7, file("5-I-8-00000-0-1-00001.parquet", Data), "transaction 8, and the change store is at 7"},
		{mixed.StoreBase, 7, file("5-B-8-00000-0-1-00001.parquet", Data), "transaction 8, and the change store is at 7"},
		{mixed.StoreBase, 7, file("5-IED-0-00000-0-1-00001.parquet", EqualityDeletes), "equality deletes"},
		{mixed.StoreBase, -1, file("5-IED-0-00000-0-1-00001.parquet", EqualityDeletes), "equality deletes"},
	} {
		if got := badFile(c.kind, c.last, c.file); c.want == "" && got != "" || !strings.Contains(got, c.want) {
			t.Errorf("%s in the %s store: %q, want %q", c.file.Path, c.kind, got, c.want)
		}
	}
}
