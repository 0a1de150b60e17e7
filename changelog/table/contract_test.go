package table_test

import (
	"database/sql"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/uuid"
	_ "github.com/jackc/pgx/v5/stdlib" // the driver "pgx"

	"firn/changelog/table"
)

// contract is what every kind of catalog must do.
var contract = []struct {
	name string
	test func(t *testing.T, kind string)
}{
	{"Create", testCreate},
	{"CreateRefuses", testCreateRefuses},
	{"CreateRollsBack", testCreateRollsBack},
	{"Flush", testFlush},
	{"Minor", testMinor},
	{"OneCommitOwnFiles", testOneCommitOwnFiles},
	{"Major", testMajor},
	{"Expire", testExpire},
	{"ExpireKeepsSharedFiles", testExpireKeepsSharedFiles},
	{"Orphans", testOrphans},
	{"Evolve", testEvolve},
	{"Fence", testFence},
	{"UnknownOutcome", testUnknownOutcome},
	{"UnknownStays", testUnknownStays},
	{"Race", testRace},
	{"ManifestsStayFew", testManifestsStayFew},
	{"Unkeyed", testUnkeyed},
	{"UnkeyedRewrite", testUnkeyedRewrite},
	{"UnkeyedFlushTakes", testUnkeyedFlushTakes},
	{"UnkeyedMarked", testUnkeyedMarked},
	{"MetadataFilesStayFew", testMetadataFilesStayFew},
	{"WrongRows", testWrongRows},
	{"Half", testHalf},
	{"Retry", testRetry},
	{"PuffinOutcome", testPuffinOutcome},
	{"SequenceForms", testSequenceForms},
	{"ExpireKeepsMark", testExpireKeepsMark},
	{"ExpireKeepsNames", testExpireKeepsNames},
}

// kinds are the catalogs of the contract. FIRN_TEST_POSTGRES is the URL of a database for its own use, FIRN_TEST_REST that of a REST
// server whose tables are in FIRN_TEST_REST_DIR/warehouse; both are emptied. Without them the contract does not run there.
func kinds() []string {
	all := []string{"sqlite", "rest", "rest-transactions"}
	if os.Getenv("FIRN_TEST_POSTGRES") != "" {
		all = append(all, "postgres")
	}
	if os.Getenv("FIRN_TEST_REST") != "" {
		all = append(all, "rest-server")
	}
	return all
}

func TestContract(t *testing.T) {
	for _, kind := range kinds() {
		t.Run(kind, func(t *testing.T) {
			for _, c := range contract {
				t.Run(c.name, func(t *testing.T) { c.test(t, kind) })
			}
		})
	}
}

// at makes the lake one with a catalog of a kind.
func (l *lake) at(kind string) {
	l.t.Helper()
	l.options = table.Options{Warehouse: filepath.Join(l.dir, "warehouse")}
	switch kind {
	case "sqlite":
		l.options.URI = filepath.Join(l.dir, "catalog.db")
	case "postgres": // tests of their own catalogs in one database
		l.options.Type, l.options.URI, l.options.Name = table.TypeSQL, os.Getenv("FIRN_TEST_POSTGRES"), uuid.NewString()
	case "rest", "rest-transactions":
		l.rest = newRESTFake(l.t, l.options.Warehouse)
		l.rest.transactions = kind == "rest-transactions"
		l.options.Type, l.options.URI, l.options.Warehouse = table.TypeREST, l.rest.url, ""
	case "rest-server":
		l.dir = os.Getenv("FIRN_TEST_REST_DIR")
		l.options.Type, l.options.URI, l.options.Warehouse = table.TypeREST, os.Getenv("FIRN_TEST_REST"), ""
		l.empty()
	default:
		l.t.Fatalf("no kind of catalog %s", kind)
	}
}

// empty takes all tables out of a catalog that tests share.
func (l *lake) empty() {
	l.t.Helper()
	c := l.open(table.Options{})
	for _, name := range []string{"db.users", "db.t", "db.t_change_", "db.events", "db.users_change_"} {
		if err := c.Unregister(l.t.Context(), name); err != nil && !errors.Is(err, table.ErrNotFound) {
			l.t.Fatal(err)
		}
	}
	if err := os.RemoveAll(filepath.Join(l.dir, "warehouse", "db")); err != nil {
		l.t.Fatal(err)
	}
}

// extra is how many snapshots a commit without files makes.
func (l *lake) extra() int64 {
	if l.options.Type == table.TypeREST {
		return 1
	}
	return 0
}

// TestOldTables: a catalog whose tables are of the JDBC catalog's schema V0, without iceberg_type, serves as it is.
func TestOldTables(t *testing.T) {
	dir := t.TempDir()
	db, err := sql.Open("sqlite", filepath.Join(dir, "catalog.db"))
	if err != nil {
		t.Fatal(err)
	}
	for _, statement := range []string{
		`CREATE TABLE iceberg_tables (catalog_name VARCHAR(255) NOT NULL, table_namespace VARCHAR(255) NOT NULL,
			table_name VARCHAR(255) NOT NULL, metadata_location VARCHAR(1000), previous_metadata_location VARCHAR(1000),
			PRIMARY KEY (catalog_name, table_namespace, table_name))`,
		`CREATE TABLE iceberg_namespace_properties (catalog_name VARCHAR(255) NOT NULL, namespace VARCHAR(255) NOT NULL,
			property_key VARCHAR(255) NOT NULL, property_value VARCHAR(1000), PRIMARY KEY (catalog_name, namespace, property_key))`,
	} {
		if _, err := db.ExecContext(t.Context(), statement); err != nil {
			t.Fatal(err)
		}
	}
	l := newLakeIn(t, dir)
	s := users(t)
	tbl := l.create("db.users", s)
	l.merged(tbl, s)
	if got := l.rows(l.load(tbl).Base(), s); len(got) != 2 {
		t.Errorf("rows %v", got)
	}
	if err := l.cat.Drop(t.Context(), "db.users", false); err != nil {
		t.Error(err)
	}
	if err := db.Close(); err != nil {
		t.Error(err)
	}
}
