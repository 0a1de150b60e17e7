package mixed

import (
	"bufio"
	"encoding/hex"
	"encoding/json"
	"errors"
	"math"
	"math/big"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"firn/changelog"
)

// lines decodes each line of a vector file of Amoro's own results into a new V.
func lines[V any](t *testing.T, name string, each func(V)) {
	t.Helper()
	f, err := os.Open(filepath.Join("testdata", name))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	n := 0
	for sc := bufio.NewScanner(f); sc.Scan(); n++ {
		var v V
		if err := json.Unmarshal(sc.Bytes(), &v); err != nil {
			t.Fatal(err)
		}
		each(v)
	}
	if n == 0 {
		t.Fatalf("%s has no vectors", name)
	}
}

type nameVector struct {
	Path         string
	Sequence     int64
	Base, Change struct {
		Index, Mask, Node, Tx int64
		Type                  string
		Error                 string // "endless", or what it threw
	}
}

// TestNamesAsAmoro holds both parsers against 400 names that Amoro's own parsed.
func TestNamesAsAmoro(t *testing.T) {
	lines(t, "filename-vectors.jsonl", func(v nameVector) {
		base, errBase := ParseBase(v.Path)
		change, errChange := ParseChange(v.Path, v.Sequence)
		if v.Base.Error != "" || v.Change.Error != "" {
			if errBase == nil || errChange == nil {
				t.Errorf("%q: accepted, Amoro refuses it", v.Path)
			}
			return
		}
		if errBase != nil || errChange != nil {
			t.Fatalf("%q: %v, %v", v.Path, errBase, errChange)
		}
		if base.Type.String() != v.Base.Type || base.Txn != v.Base.Tx || base.Node.ID() != v.Base.Node ||
			base.Node.Mask != v.Base.Mask || base.Node.Index != v.Base.Index {
			t.Errorf("%q as base: got %+v, want %+v", v.Path, base, v.Base)
		}
		if change.Type.String() != v.Change.Type || change.Txn != v.Change.Tx || change.Node.ID() != v.Change.Node {
			t.Errorf("%q as change: got %+v, want %+v", v.Path, change, v.Change)
		}
	})
}

// TestNameTraps: names on which Amoro hangs or throws are errors, not files.
func TestNameTraps(t *testing.T) {
	for _, name := range []string{
		"0-I-0-00000-0-1-00001.parquet", "00-B-0-00000-0-1-00001.parquet",
		"9223372036854775808-I-0-00000-0-1-00001.parquet", "1-I-9223372036854775808-00000-0-1-00001.parquet",
	} {
		if _, err := ParseChange("data/"+name, 1); !errors.Is(err, ErrBadName) {
			t.Errorf("change %q: %v", name, err)
		}
		if _, err := ParseBase(name); !errors.Is(err, ErrBadName) {
			t.Errorf("base %q: %v", name, err)
		}
	}
	for _, name := range []string{
		"9223372036854775807-I-9223372036854775807-99999999999999999999-99999999999999999999-1-00001.parquet",
		"1-I-0-00000-0-" + strings.Repeat("9", 40) + "-00001.parquet.crc",
	} {
		if _, err := ParseChange(name, 1); err != nil {
			t.Errorf("%q: %v", name, err)
		}
	}
	for _, id := range []int64{0, -1, math.MinInt64} {
		if _, err := NodeOf(id); !errors.Is(err, ErrBadNode) {
			t.Errorf("node %d: %v", id, err)
		}
	}
}

func TestNameRoundTrip(t *testing.T) {
	want := "5-I-0-00000-3-8463728193847362-00001.parquet"
	got := FileName{Node: TreeNode{Mask: 3, Index: 1}, Type: Insert, Task: 3, Op: 8463728193847362, Count: 1}.String()
	if got != want {
		t.Fatalf("got %q, want %q", got, want)
	}
	rapid.Check(t, func(t *rapid.T) {
		node, err := NodeOf(rapid.Int64Range(1, math.MaxInt64).Draw(t, "node"))
		if err != nil {
			t.Fatal(err)
		}
		n := FileName{
			Node: node, Type: FileType(rapid.Uint8Range(uint8(Base), uint8(Log)).Draw(t, "type")),
			Txn: rapid.Int64Range(1, math.MaxInt64).Draw(t, "txn"), Part: rapid.IntRange(0, 1e6).Draw(t, "part"),
			Task: rapid.Int64Range(0, math.MaxInt64).Draw(t, "task"), Op: rapid.Int64Range(0, math.MaxInt64).Draw(t, "op"),
			Count: rapid.IntRange(1, 1e6).Draw(t, "count"),
		}
		info, err := ParseChange("file:///x/"+n.String(), 7)
		if err != nil || info != (FileInfo{Node: n.Node, Type: n.Type, Txn: n.Txn}) {
			t.Fatalf("%q: %+v, %v", n, info, err)
		}
	})
}

type hashVector struct {
	Hash int64
	Node map[string]int64
	Key  []struct {
		Type  string
		Value json.RawMessage
	}
}

// TestHashAsAmoro holds hash and node against 2,000 keys that Amoro's PrimaryKeyData hashed.
func TestHashAsAmoro(t *testing.T) {
	lines(t, "hash-vectors.jsonl", func(v hashVector) {
		types := make([]*changelog.Type, len(v.Key))
		values := make([]changelog.Value, len(v.Key))
		for i, k := range v.Key {
			types[i], values[i] = vectorValue(t, k.Type, k.Value)
		}
		h := KeyHash(types, values)
		if int64(h) != v.Hash {
			t.Fatalf("%v: hash %d, want %d", v.Key, h, v.Hash)
		}
		for buckets, want := range v.Node {
			n := map[string]int{"1": 1, "4": 4, "16": 16, "1024": 1024}[buckets]
			if got := NodeFor(h, n).ID(); got != want || !ValidBuckets(n) {
				t.Fatalf("%v: node %d of %d buckets, want %d", v.Key, got, n, want)
			}
		}
	})
}

// vectorValue reads a key value in the spelling of the vectors (the common row form).
func vectorValue(t *testing.T, typ string, raw json.RawMessage) (*changelog.Type, changelog.Value) {
	t.Helper()
	name, args, _ := strings.Cut(typ, "(")
	if strings.HasPrefix(typ, "fixed") {
		name = "fixed"
	}
	kinds := map[string]changelog.Kind{
		"boolean": changelog.Boolean, "int": changelog.Int, "long": changelog.Long, "float": changelog.Float,
		"double": changelog.Double, "decimal": changelog.Decimal, "date": changelog.Date, "time": changelog.Time,
		"timestamp": changelog.Timestamp, "timestamptz": changelog.TimestampTZ, "string": changelog.String,
		"uuid": changelog.UUID, "fixed": changelog.Fixed, "binary": changelog.Binary,
	}
	out := &changelog.Type{Kind: kinds[name]}
	if name == "decimal" {
		var p, s int
		if err := json.Unmarshal([]byte("["+strings.TrimSuffix(args, ")")+"]"), &[]any{&p, &s}); err != nil {
			t.Fatal(err)
		}
		out = changelog.DecimalOf(p, s)
	}
	if string(raw) == "null" {
		return out, changelog.NullValue
	}
	var text string
	if raw[0] == '"' {
		if err := json.Unmarshal(raw, &text); err != nil {
			t.Fatal(err)
		}
	} else {
		text = string(raw)
	}
	return out, vectorText(t, out, text)
}

func vectorText(t *testing.T, typ *changelog.Type, text string) changelog.Value {
	t.Helper()
	unhex := func(s string) changelog.Value {
		b, err := hex.DecodeString(s)
		if err != nil {
			t.Fatal(err)
		}
		return changelog.Value{B: b}
	}
	at := func(layout string) time.Time {
		v, err := time.Parse(layout, text)
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
	number := func(into any) {
		if err := json.Unmarshal([]byte(text), into); err != nil {
			t.Fatal(err)
		}
	}
	switch typ.Kind {
	case changelog.Boolean:
		return changelog.Value{I: map[string]int64{"true": 1, "false": 0}[text]}
	case changelog.Int, changelog.Long:
		var n int64
		number(&n)
		return changelog.Value{I: n}
	case changelog.Float, changelog.Double:
		f := map[string]float64{"NaN": math.NaN(), "Infinity": math.Inf(1), "-Infinity": math.Inf(-1), "-0": math.Copysign(0, -1)}
		v, ok := f[text]
		if !ok {
			number(&v)
		}
		if typ.Kind == changelog.Float {
			return changelog.FloatValue(float32(v))
		}
		return changelog.DoubleValue(v)
	case changelog.Decimal:
		n, ok := new(big.Int).SetString(strings.ReplaceAll(text, ".", ""), 10)
		if !ok {
			t.Fatalf("decimal %q", text)
		}
		return changelog.Value{B: twosComplement(n)}
	case changelog.Date:
		return changelog.Value{I: days(t, text)}
	case changelog.Time:
		return changelog.Value{I: at("15:04:05.000000").Sub(at("15:04:05.000000").Truncate(24 * time.Hour)).Microseconds()}
	case changelog.Timestamp, changelog.TimestampTZ:
		day, clock, _ := strings.Cut(strings.TrimSuffix(text, "Z"), "T")
		c, err := time.Parse("15:04:05.000000", clock)
		if err != nil {
			t.Fatal(err)
		}
		micros := c.Sub(c.Truncate(24 * time.Hour)).Microseconds()
		return changelog.Value{I: days(t, day)*86_400_000_000 + micros}
	case changelog.String:
		return changelog.Value{B: []byte(text)}
	case changelog.UUID:
		return unhex(strings.ReplaceAll(text, "-", ""))
	default:
		return unhex(text)
	}
}

// days reads a date of any year: "-0043-03-15", "+294247-01-01".
func days(t *testing.T, text string) int64 {
	t.Helper()
	sign := int64(1)
	if text[0] == '-' || text[0] == '+' {
		if text[0] == '-' {
			sign = -1
		}
		text = text[1:]
	}
	parts := strings.Split(text, "-")
	var n [3]int64
	for i, p := range parts {
		v, ok := new(big.Int).SetString(p, 10)
		if !ok {
			t.Fatalf("date %q", text)
		}
		n[i] = v.Int64()
	}
	y, m, d := sign*n[0], n[1], n[2]
	if m <= 2 {
		y--
	}
	era := y / 400
	if y < 0 && y%400 != 0 {
		era--
	}
	yoe := y - era*400
	doy := (153*((m+9)%12)+2)/5 + d - 1
	return era*146097 + yoe*365 + yoe/4 - yoe/100 + doy - 719468
}

func twosComplement(n *big.Int) []byte {
	if n.Sign() >= 0 {
		return changelog.ShortestInt(append([]byte{0}, n.Bytes()...))
	}
	wide := new(big.Int).Add(n, new(big.Int).Lsh(big.NewInt(1), 136))
	return changelog.ShortestInt(wide.FillBytes(make([]byte, 17)))
}

func TestHashOfKeyBytes(t *testing.T) {
	s, err := changelog.NewSchema([]changelog.Column{
		{Name: "a", Type: changelog.Primitive(changelog.Long)}, {Name: "b", Type: changelog.Primitive(changelog.String)},
	}, []string{"b", "a"})
	if err != nil {
		t.Fatal(err)
	}
	values := []changelog.Value{{B: []byte("lily")}, {I: -1}}
	key := changelog.AppendKey(nil, s.KeyTypes(), values)
	got, err := HashOf(s, key)
	if want := KeyHash(s.KeyTypes(), values); err != nil || got != want {
		t.Fatalf("got %d, %v, want %d", got, err, want)
	}
	if _, err := HashOf(s, key[:3]); !errors.Is(err, changelog.ErrCorrupt) {
		t.Fatalf("cut key: %v", err)
	}
}

// TestNodesMeet: a key's nodes at any two numbers of buckets are related, so that deletes at one level meet rows at another.
func TestNodesMeet(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		h := rapid.Int32Range(0, math.MaxInt32).Draw(t, "hash")
		a := NodeFor(h, 1<<rapid.IntRange(0, 16).Draw(t, "a"))
		b := NodeFor(h, 1<<rapid.IntRange(0, 16).Draw(t, "b"))
		if !a.Related(b) || !a.IsSonOf(TreeNode{}) {
			t.Fatalf("nodes %s and %s of hash %d are not related", a, b, h)
		}
		l, r := a.Children()
		if !l.IsSonOf(a) || !r.IsSonOf(a) || l.Related(r) || a.IsSonOf(l) {
			t.Fatalf("children %s and %s of %s", l, r, a)
		}
		back, err := NodeOf(a.ID())
		if err != nil || back != a {
			t.Fatalf("id %d of %+v gives %+v, %v", a.ID(), a, back, err)
		}
	})
}

func TestBucketsAfterWidening(t *testing.T) {
	s0, err := changelog.NewSchema([]changelog.Column{
		{Name: "id", Type: changelog.Primitive(changelog.Int)}, {Name: "n", Type: changelog.Primitive(changelog.Int)},
	}, []string{"id"})
	if err != nil {
		t.Fatal(err)
	}
	s1, err := s0.Evolve(nil, map[string]*changelog.Type{"n": changelog.Primitive(changelog.Long)})
	if err != nil {
		t.Fatal(err)
	}
	s2, err := s1.Evolve(nil, map[string]*changelog.Type{"id": changelog.Primitive(changelog.Long)})
	if err != nil {
		t.Fatal(err)
	}
	if got := Buckets(changelog.Schemas{s0, s1}, 4); got != 4 {
		t.Errorf("other column widened: %d buckets", got)
	}
	if got := Buckets(changelog.Schemas{s0, s1, s2}, 4); got != 1 {
		t.Errorf("key column widened: %d buckets", got)
	}
}

func TestPartitionPaths(t *testing.T) {
	for _, c := range []struct{ in, want string }{
		{"", ""},
		{"region=%2A~%27", "region=*%7E%27"},
		{"region=*%7E%27", "region=*%7E%27"},
		{"region=us+west/day=2024-01-01", "region=us+west/day=2024-01-01"},
		{"region=us%20west", "region=us+west"},
		{"region=%c3%a4%2F%C3%B6", "region=%C3%A4%2F%C3%B6"},
		{"region=50%25", "region=50%25"},
		{"region=50%", "region=50%"},
		{"region=x%3Dy", "region=x%3Dy"},
		{"region=null", "region=null"},
	} {
		if got := NormalizePath(c.in); got != c.want {
			t.Errorf("%q: got %q, want %q", c.in, got, c.want)
		}
	}
	rapid.Check(t, func(t *rapid.T) {
		v := rapid.String().Draw(t, "value")
		java := "p=" + EscapePath(v)
		if NormalizePath(java) != java || NormalizePath("p="+url.QueryEscape(v)) != java {
			t.Fatalf("%q: %q", v, java)
		}
	})
}

func TestPartitionProperties(t *testing.T) {
	p, err := ParsePartitionProperties(`{"r=%2A":{"max-txId":"17","base-op-time":"5"},"r=*":{"max-txId":"9"},"gone":{"max-txId":"1"},"h":{"hive-location":"x"}}`)
	if err != nil {
		t.Fatal(err)
	}
	seqs, err := p.Optimized()
	if err != nil || len(seqs) != 2 || seqs["r=*"] != 17 || seqs["gone"] != 1 {
		t.Fatalf("got %v, %v", seqs, err)
	}
	p.SetOptimized(map[string]int64{"r=%2A": 20, "": 3})
	want := `{"":{"max-txId":"3"},"h":{"hive-location":"x"},"r=*":{"base-op-time":"5","max-txId":"20"}}`
	if got := p.String(); got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	for _, bad := range []string{"[]", "{", `{"a":"b"}`} {
		if _, err := ParsePartitionProperties(bad); !errors.Is(err, ErrBadProperty) {
			t.Errorf("%s: %v", bad, err)
		}
	}
	if p, err := ParsePartitionProperties(`{"":{"max-txId":"x"}}`); err != nil {
		t.Error(err)
	} else if _, err := p.Optimized(); !errors.Is(err, ErrBadProperty) {
		t.Errorf("not a number: %v", err)
	}
	if p, err := ParsePartitionProperties(""); err != nil || len(p) != 0 {
		t.Errorf("empty: %v, %v", p, err)
	}
}

// TestPropertiesAreVerbatim: the properties of spec/mixed-format.md 1.2.
func TestPropertiesAreVerbatim(t *testing.T) {
	at := time.UnixMilli(1700000000000)
	base := BaseProperties([]string{"b", "a"}, "db.t_change_", at)
	change := ChangeProperties([]string{"b", "a"}, at)
	for k, v := range map[string]string{
		"table-format": "MIXED_ICEBERG", "mixed-format.primary-key-fields": "b,a", "table.create-timestamp": "1700000000000",
		"write.metadata.delete-after-commit.enabled": "true", "flink.max-continuous-empty-commits": "2147483647",
	} {
		if base[k] != v || change[k] != v {
			t.Errorf("%s: base %q, change %q, want %q", k, base[k], change[k], v)
		}
	}
	if base["mixed-format.table-store"] != "base" || change["mixed-format.table-store"] != "change" ||
		base["mixed-format.change.identifier"] != "db.t_change_" || change["mixed-format.change.identifier"] != "" {
		t.Errorf("base %v, change %v", base, change)
	}
	unkeyed := BaseProperties(nil, "db.t_change_", at)
	if _, ok := unkeyed[PropKey]; ok || unkeyed[PropChange] != "" {
		t.Errorf("unkeyed: %v", unkeyed)
	}
	if StoreOf(base) != StoreBase || StoreOf(change) != StoreChange || StoreOf(nil) != "" ||
		StoreOf(map[string]string{"table-format": "mixed_iceberg", "mixed-format.table-store": "BASE"}) != StoreBase {
		t.Error("StoreOf")
	}
	if ChangeName("t") != "t_change_" {
		t.Error("ChangeName")
	}
}
