package decode

import (
	"encoding/base64"
	"fmt"
	"math/big"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"firn/changelog"
)

// message makes a record with one column v besides the key.
func message(connector, schema, value string) Record {
	row := `{"type":"struct","fields":[{"type":"int32","optional":false,"field":"id"},` + strings.TrimSuffix(schema, "}") + `,"optional":true,"field":"v"}],"optional":true,"name":"t.Value","field":"`
	return Record{
		Topic: "p.s.t",
		Key:   []byte(`{"schema":{"type":"struct","fields":[{"type":"int32","optional":false,"field":"id"}],"optional":false,"name":"t.Key"},"payload":{"id":1}}`),
		Value: []byte(`{"schema":{"type":"struct","fields":[` + row + `before"},` + row + `after"},` +
			`{"type":"struct","fields":[],"optional":false,"name":"io.debezium.connector.` + connector + `.Source","field":"source"},{"type":"string","optional":false,"field":"op"}],"optional":false,"name":"t.Envelope"},` +
			`"payload":{"before":null,"after":{"id":1,"v":` + value + `},"source":{"connector":"` + connector + `","name":"p","table":"t","lsn":1},"op":"c"}}`),
	}
}

// decodeValue decodes one value and shows it: its type, its form and what was reported, or the reason of a rejection.
func decodeValue(t *testing.T, o Options, connector, schema, value string) string {
	t.Helper()
	ev, err := newDecoder(t, o).Decode(message(connector, schema, value))
	if err != nil {
		return reasonOf(err)
	}
	s := ev.Shape.Columns[1].Type.String() + " " + text(form(t, ev.Shape.Columns[1].Type, ev.After[1]))
	for _, r := range ev.Reports {
		s += " " + r.Reason
	}
	for range ev.Placeholders {
		s += " placeholder"
	}
	return s
}

func decimalSchema(precision, scale int) string {
	return fmt.Sprintf(`{"type":"bytes","name":"org.apache.kafka.connect.data.Decimal","parameters":{"scale":"%d","connect.decimal.precision":"%d"}}`, scale, precision)
}

func TestValues(t *testing.T) {
	const (
		i8, i16, i32, i64 = `{"type":"int8"}`, `{"type":"int16"}`, `{"type":"int32"}`, `{"type":"int64"}`
		text              = `{"type":"string"}`
		vsd               = `{"type":"struct","fields":[{"type":"int32","field":"scale"},{"type":"bytes","field":"value"}],"name":"io.debezium.data.VariableScaleDecimal"}`
		zoned             = `{"type":"string","name":"io.debezium.time.ZonedTimestamp"}`
		isoDate           = `{"type":"string","name":"io.debezium.time.IsoDate"}`
		isoTime           = `{"type":"string","name":"io.debezium.time.IsoTime"}`
		uuid              = `{"type":"string","name":"io.debezium.data.Uuid"}`
		comma             = `{"type":"string","name":"io.debezium.data.Enum","parameters":{"allowed":"a\\,b,c,d\\\\e"}}`
		duration          = `{"type":"double","name":"io.debezium.time.MicroDuration"}`
		pairs             = `{"type":"map","keys":{"type":"int32"},"values":{"type":"string","optional":true}}`
		nanos             = `{"type":"int64","name":"io.debezium.time.NanoTimestamp"}`
		millis            = `{"type":"int64","name":"io.debezium.time.Timestamp"}`
		date64            = `{"type":"int64","name":"io.debezium.time.Date"}`
	)
	b64 := func(hexes ...byte) string { return `"` + base64.StdEncoding.EncodeToString(hexes) + `"` }
	for _, c := range []struct{ name, connector, schema, value, want string }{
		{"int8 low", "mysql", i8, "-128", "int -128"},
		{"int8 high", "mysql", i8, "128", "int_range"},
		{"int16", "mysql", i16, "-32769", "int_range"},
		{"int32", "mysql", i32, "-2147483648", "int -2147483648"},
		{"int64 low", "mysql", i64, "-9223372036854775808", "long -9223372036854775808"},
		{"int64 over", "mysql", i64, "9223372036854775808", "int_range"},
		{"int64 18 digits", "mysql", i64, "999999999999999999", "long 999999999999999999"},
		{"int64 19 digits", "mysql", i64, "1000000000000000000", "long 1000000000000000000"},
		{"int zero", "mysql", i64, "-0", "long 0"},
		{"int leading zero", "mysql", i64, "01", "json_syntax"},
		{"int fraction", "mysql", i64, "1.0", "type_mismatch"},
		{"int exponent", "mysql", i64, "1e2", "type_mismatch"},
		{"int null", "mysql", i64, "null", "long <nil>"},
		{"float", "mysql", `{"type":"float"}`, "16777217", "float 16777216"},
		{"float32", "mysql", `{"type":"float32"}`, "1e39", "float_range"},
		{"double tiny", "mysql", `{"type":"double"}`, "1e-400", "double 0"},
		{"double digits", "mysql", `{"type":"double"}`, strings.Repeat("1", 401), "float_range"},
		{"double text", "mysql", `{"type":"double"}`, `"1"`, "type_mismatch"},
		{"boolean", "mysql", `{"type":"boolean"}`, `0`, "type_mismatch"},

		{"decimal", "mysql", decimalSchema(4, 2), b64(0x27, 0x0f), "decimal(4,2) \"99.99\""},
		{"decimal over", "mysql", decimalSchema(4, 2), b64(0x27, 0x10), "decimal(4,2) <nil> decimal_precision"},
		{"decimal negative", "mysql", decimalSchema(4, 2), b64(0xd8, 0xf1), "decimal(4,2) \"-99.99\""},
		{"decimal sign bytes", "mysql", decimalSchema(4, 2), b64(0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff), "decimal(4,2) \"-0.01\""},
		{"decimal scale over precision", "postgresql", decimalSchema(3, 5), b64(0x7b), "decimal(5,5) \"0.00123\""},
		{"decimal negative scale", "oracle", decimalSchema(36, -2), b64(0x7b), "decimal(38,0) \"12300\""},
		{"decimal negative scale too wide", "oracle", decimalSchema(37, -2), b64(0x7b), "string \"12300\""},
		{"decimal 33 bytes", "mysql", decimalSchema(4, 2), b64(make([]byte, 33)...), "decimal_bytes"},
		{"decimal number", "mysql", decimalSchema(4, 2), "1e1", "decimal(4,2) \"10.00\""},
		{"decimal number zeros", "mysql", decimalSchema(4, 2), "-1.23000", "decimal(4,2) \"-1.23\""},
		{"decimal number digits", "mysql", decimalSchema(4, 2), "1.234", "decimal(4,2) <nil> decimal_precision"},
		{"decimal number wide", "mysql", decimalSchema(4, 2), "100", "decimal(4,2) <nil> decimal_precision"},
		{"decimal number zero", "mysql", decimalSchema(4, 2), "0.000", "decimal(4,2) \"0.00\""},
		{"decimal number exponent", "mysql", decimalSchema(4, 2), "1e99999999999", "decimal_bytes"},
		{"decimal text number", "mysql", decimalSchema(40, 2), "12.50e3", "string \"12500\""},
		{"decimal text", "mysql", decimalSchema(40, 2), b64(0xff), "string \"-0.01\""},
		{"decimal boolean", "mysql", decimalSchema(4, 2), "true", "type_mismatch"},
		{"variable", "oracle", vsd, `{"scale":2,"value":"AA=="}`, "string \"0\""},
		{"variable order", "oracle", vsd, `{"value":"/w==","scale":3}`, "string \"-0.001\""},
		{"variable negative", "oracle", vsd, `{"scale":-2,"value":"AQ=="}`, "string \"100\""},
		{"variable trailing", "oracle", vsd, `{"scale":2,"value":"ZA=="}`, "string \"1\""},
		{"variable 100", "oracle", vsd, `{"scale":0,"value":"ZA=="}`, "string \"100\""},
		{"variable part", "oracle", vsd, `{"scale":2}`, "required_missing"},
		{"variable scale", "oracle", vsd, `{"scale":-2147483648,"value":"AQ=="}`, "decimal_bytes"},
		{"variable other", "oracle", vsd, `{"scale":2,"value":"AQ==","x":1}`, "schema_payload_mismatch"},

		{"date", "postgresql", `{"type":"int32","name":"io.debezium.time.Date"}`, "-719528", "date \"0000-01-01\""},
		{"date infinity", "postgresql", `{"type":"int32","name":"io.debezium.time.Date"}`, "-622191234", "date <nil> temporal_special"},
		{"date no infinity", "mysql", `{"type":"int32","name":"io.debezium.time.Date"}`, "-622191233", "date \"-1701532-04-06\""},
		{"date of int64", "mysql", date64, "2147483648", "int_range"},
		{"date of int64 small", "mysql", date64, "1", "date \"1970-01-02\""},
		{"millis over", "mysql", millis, "9223372036854776", "timestamp <nil> temporal_range"},
		{"millis", "mysql", millis, "-1", "timestamp \"1969-12-31T23:59:59.999000\""},
		{"nanos", "mysql", nanos, "-1", "timestamp \"1969-12-31T23:59:59.999999\" sub_micro"},
		{"nanos exact", "mysql", nanos, "1000", "timestamp \"1970-01-01T00:00:00.000001\""},
		{"nanos infinity", "mysql", nanos, "9223372036854775807", "timestamp \"2262-04-11T23:47:16.854775\" sub_micro"},
		{"iso date", "postgresql", isoDate, `"2024-02-29Z"`, "date \"2024-02-29\""},
		{"iso date offset", "postgresql", isoDate, `"2024-02-29+02:00"`, "date \"2024-02-29\""},
		{"iso date infinity", "postgresql", isoDate, `"-5877611-06-22Z"`, "date <nil> temporal_special"},
		{"iso date range", "postgresql", isoDate, `"+9999999-01-01Z"`, "date <nil> temporal_range"},
		{"iso date no leap", "postgresql", isoDate, `"1900-02-29Z"`, "temporal_format"},
		{"iso date leap", "postgresql", isoDate, `"2000-02-29Z"`, "date \"2000-02-29\""},
		{"iso date no zone", "postgresql", isoDate, `"2000-02-29"`, "temporal_format"},
		{"iso time", "postgresql", isoTime, `"23:59:59.9Z"`, "time \"23:59:59.900000\""},
		{"iso time 24", "postgresql", isoTime, `"24:00:00Z"`, "temporal_format"},
		{"iso time offset", "postgresql", isoTime, `"01:00:00+01:00"`, "temporal_format"},
		{"zoned seconds", "oracle", zoned, `"2026-01-01T00:00:00+01:02:03"`, "timestamptz \"2025-12-31T22:57:57.000000Z\""},
		{"zoned five digits", "oracle", zoned, `"12345-01-01T00:00:00Z"`, "temporal_format"},
		{"zoned ten digits", "oracle", zoned, `"2026-01-01T00:00:00.1234567890Z"`, "temporal_format"},
		{"zoned range", "oracle", zoned, `"+999999999-01-01T00:00:00Z"`, "timestamptz <nil> temporal_range"},
		{"zoned edge", "oracle", zoned, `"+294247-01-10T04:00:54.775807Z"`, "timestamptz \"+294247-01-10T04:00:54.775807Z\""},
		{"zoned past the edge", "oracle", zoned, `"+294247-01-10T04:00:54.775808Z"`, "timestamptz <nil> temporal_range"},
		{"zoned infinity elsewhere", "oracle", zoned, `"infinity"`, "temporal_format"},
		{"duration whole", "oracle", duration, "37091106780000.0", "long 37091106780000"},
		{"duration part", "oracle", duration, "1.5", "type_mismatch"},
		{"duration NaN", "oracle", duration, `"NaN"`, "type_mismatch"},

		{"uuid bare", "postgresql", uuid, `"A0EEBC999C0B4EF8BB6D6BB9BD380A11"`, "uuid \"a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11\""},
		{"uuid misplaced", "postgresql", uuid, `"a0eebc999-c0b-4ef8-bb6d-6bb9bd380a11"`, "uuid"},
		{"uuid long", "postgresql", uuid, `"a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a1111"`, "uuid"},
		{"enum bare", "mariadb", comma, `"a,b"`, "string \"a,b\""},
		{"enum escaped", "mariadb", comma, `"a\\,b"`, "string \"a,b\""},
		{"enum other", "mariadb", comma, `"x\\,y"`, `string "x\\,y"`},
		{"enum backslash member", "mariadb", comma, `"d\\e"`, `string "d\\e"`},
		{"text number", "mysql", text, "1", "type_mismatch"},
		{"text reference", "mysql", text, `"__debezium:s3:ref:v1:bucket|key"`, "value_reference"},
		{"text hex placeholder", "mysql", text, `"5f5f646562657a69756d5f756e617661696c61626c655f76616c7565"`, "string <nil> placeholder"},
		{"text hex in postgres", "postgresql", text, `"5f5f646562657a69756d5f756e617661696c61626c655f76616c7565"`, `string "5f5f646562657a69756d5f756e617661696c61626c655f76616c7565"`},
		{"text escaped placeholder", "mysql", text, `"\u005f_debezium_unavailable_value"`, "string <nil> placeholder"},
		{"bytes spare bits", "mysql", `{"type":"bytes"}`, `"AB=="`, "base64"},
		{"bytes number", "mysql", `{"type":"bytes"}`, `1`, "type_mismatch"},
		{"bits", "postgresql", `{"type":"bytes","name":"io.debezium.data.Bits","parameters":{"length":"12"}}`, `""`, `binary ""`},
		{"bits unbounded", "postgresql", `{"type":"bytes","name":"io.debezium.data.Bits","parameters":{"length":"2147483647"}}`, `"AQIDBAUG"`, `binary "010203040506"`},

		{"pairs", "mysql", pairs, `[[2,"b"],[1,null]]`, `map<int,string> [[1,<nil>],[2,"b"]]`},
		{"pairs twice", "mysql", pairs, `[[1,"a"],[2,"b"],[1,"c"]]`, `map<int,string> [[1,"c"],[2,"b"]] json_duplicate_key`},
		{"pairs null key", "mysql", pairs, `[[null,"a"]]`, "type_mismatch"},
		{"pairs empty", "mysql", pairs, `[]`, "map<int,string> []"},
		{"pairs three", "mysql", pairs, `[[1,"a",2]]`, "json_syntax"},
		{"map twice", "mysql", `{"type":"map","keys":{"type":"string"},"values":{"type":"int32"}}`, `{"a":1,"a":2}`, "json_duplicate_key"},
		{"list of lists", "mysql", `{"type":"array","items":{"type":"array","items":{"type":"int8"}}}`, `[[1,null],null,[]]`, "list<list<int>> [[1,<nil>],<nil>,[]]"},
		{"list element", "mysql", `{"type":"array","items":{"type":"int8"}}`, `[1,200]`, "int_range"},
		{"struct", "mysql", `{"type":"struct","fields":[{"type":"int8","optional":true,"field":"a"},{"type":"array","items":{"type":"string"},"optional":true,"field":"b"}]}`, `{"b":["x"],"a":1}`, `struct<a:int,b:list<string>> {"a":1,"b":["x"]}`},
		{"struct other member", "mysql", `{"type":"struct","fields":[{"type":"int8","optional":true,"field":"a"}]}`, `{"x":1}`, "schema_payload_mismatch"},
		{"struct member missing", "mysql", `{"type":"struct","fields":[{"type":"int8","optional":false,"field":"a"}]}`, `{}`, "required_missing"},
		{"no type", "mysql", `{"name":"x"}`, `1`, "schema_invalid"},
		{"no items", "mysql", `{"type":"array"}`, `[]`, "schema_invalid"},
		{"unknown name", "mysql", `{"type":"string","name":"com.example.Thing"}`, `"x"`, `string "x"`},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := decodeValue(t, Options{}, c.connector, c.schema, c.value); got != c.want {
				t.Errorf("%s, want %s", got, c.want)
			}
		})
	}
}

func TestInfinityPolicies(t *testing.T) {
	const date, micro = `{"type":"int32","name":"io.debezium.time.Date"}`, `{"type":"int64","name":"io.debezium.time.MicroTimestamp"}`
	for _, c := range []struct {
		policy              Infinity
		schema, value, want string
	}{
		{InfinityNull, date, "-2147472692", "date <nil> temporal_special"},
		{InfinityClamp, date, "-2147472692", `date "9999-12-31" temporal_special`},
		{InfinityClamp, date, "-2147472691", `date "0001-01-01" temporal_special`},
		{InfinityClamp, micro, "9223372036825200000", `timestamp "9999-12-31T23:59:59.999999" temporal_special`},
		{InfinityClamp, micro, "-9223372036832400000", `timestamp "0001-01-01T00:00:00.000000" temporal_special`},
		{InfinityReject, date, "-2147472692", "temporal_special"},
	} {
		if got := decodeValue(t, Options{Infinity: c.policy}, "postgresql", c.schema, c.value); got != c.want {
			t.Errorf("policy %d, %s: %s, want %s", c.policy, c.value, got, c.want)
		}
	}
}

// TestWideDecimals: what has more than 38 digits becomes canonical text, as the live recordings' sources show it.
func TestWideDecimals(t *testing.T) {
	for _, c := range []struct {
		precision, scale int
		unscaled, want   string
	}{
		{50, 10, "12345678901234567890123456789012345678905000000000", "1234567890123456789012345678901234567890.5"},
		{65, 30, "-99999999999999999999999999999999999999999999999999999999999999999", "-99999999999999999999999999999999999.999999999999999999999999999999"},
		{65, 30, "0", "0"},
		{5, 2046, "-9999900" + strings.Repeat("0", 2046), "-9999900"},
		{50, 10, "-5", "-0.0000000005"},
	} {
		n, _ := new(big.Int).SetString(c.unscaled, 10)
		got := decodeValue(t, Options{}, "postgresql", decimalSchema(c.precision, c.scale), `"`+base64.StdEncoding.EncodeToString(twosComplement(n))+`"`)
		if got != fmt.Sprintf("string %q", c.want) {
			t.Errorf("%d, %d: %s, want %s", c.precision, c.scale, got, c.want)
		}
	}
}

func twosComplement(n *big.Int) []byte {
	size := n.BitLen()/8 + 1
	if n.Sign() < 0 {
		n = new(big.Int).Add(n, new(big.Int).Lsh(big.NewInt(1), uint(8*size)))
	}
	return n.FillBytes(make([]byte, size))
}

// TestDecimalsAgainstBig: bytes and numbers of every size give what math/big says.
func TestDecimalsAgainstBig(t *testing.T) {
	rng := rand.New(rand.NewPCG(5, 6))
	for range 2000 {
		precision := 1 + rng.IntN(38)
		scale := rng.IntN(precision + 1)
		limit := new(big.Int).Exp(big.NewInt(10), big.NewInt(int64(precision)), nil)
		n := new(big.Int)
		for range 1 + rng.IntN(3) {
			n.Lsh(n, 64).Add(n, new(big.Int).SetUint64(rng.Uint64()))
		}
		n.Rsh(n, uint(rng.IntN(n.BitLen()+1)))
		if rng.IntN(8) == 0 { // the edges
			n.Sub(limit, big.NewInt(int64(rng.IntN(2))))
		}
		if rng.IntN(2) == 0 {
			n.Neg(n)
		}
		want := fmt.Sprintf("decimal(%d,%d) <nil> decimal_precision", precision, scale)
		if n.CmpAbs(limit) < 0 {
			want = fmt.Sprintf("decimal(%d,%d) %q", precision, scale, decimalForm(twosComplement(n), scale))
		}
		for _, value := range []string{`"` + base64.StdEncoding.EncodeToString(twosComplement(n)) + `"`, fmt.Sprintf("%de-%d", n, scale)} {
			if got := decodeValue(t, Options{}, "mysql", decimalSchema(precision, scale), value); got != want {
				t.Fatalf("%s: %s, want %s", value, got, want)
			}
		}
	}
}

// TestDaysAgainstStandard compares day numbers with package time's, and dates with those around them.
func TestDaysAgainstStandard(t *testing.T) {
	for days := int64(-800_000); days < 3_000_000; days += 11 {
		at := time.Unix(days*86400, 0).UTC()
		m := moment{year: int64(at.Year()), month: int64(at.Month()), day: int64(at.Day())}
		if got, ok := m.days(); !ok || got != days {
			t.Fatalf("%v: day %d, want %d", at, got, days)
		}
	}
	for _, m := range []moment{{year: 1, month: 13, day: 1}, {year: 1, day: 1}, {year: 2023, month: 2, day: 29}, {year: 1, month: 4, day: 31}} {
		if _, ok := m.days(); ok {
			t.Errorf("%+v is a date", m)
		}
	}
}

// TestArenaIsBounded: values that are much longer than what stands for them do not add up without end.
func TestArenaIsBounded(t *testing.T) {
	const list = `{"type":"array","items":{"type":"struct","fields":[{"type":"int32","field":"scale"},{"type":"bytes","field":"value"}],"name":"io.debezium.data.VariableScaleDecimal"}}`
	value := "[" + strings.TrimSuffix(strings.Repeat(`{"scale":-65536,"value":"AQ=="},`, 10_000), ",") + "]"
	if got := decodeValue(t, Options{}, "oracle", list, value); got != ReasonMessageSize {
		t.Errorf("%.100s", got)
	}
}

func TestPlaceholderInOctets(t *testing.T) {
	o := Options{Placeholder: "hex:00ff10"}
	if got := decodeValue(t, o, "postgresql", `{"type":"bytes"}`, `"AP8Q"`); got != "binary <nil> placeholder" {
		t.Error(got)
	}
	if got := decodeValue(t, o, "postgresql", `{"type":"string"}`, `"__debezium_unavailable_value"`); got != `string "__debezium_unavailable_value"` {
		t.Error(got)
	}
	bad := Options{Placeholder: "hex:0"}
	if bad.Validate() == nil {
		t.Error("odd number of hex digits is accepted")
	}
}

// TestKeyFillsRow: a key column that rows do not have, and a placeholder in one that they have, take the key's value.
func TestKeyFillsRow(t *testing.T) {
	d := newDecoder(t, Options{})
	r := Record{
		Topic: "t",
		Key:   []byte(`{"a":7,"b":"k"}`),
		Value: []byte(`{"before":null,"after":{"a":7,"x":1.5},"source":{"connector":"postgresql","lsn":5},"op":"c"}`),
	}
	ev, err := d.Decode(r)
	if err != nil {
		t.Fatal(err)
	}
	if len(ev.Shape.Columns) != 3 || len(ev.After) != 3 || string(ev.After[2].B) != "k" || fmt.Sprint(ev.Shape.Key) != "[0 2]" {
		t.Errorf("columns %v, after %v, key %v", ev.Shape.Columns, ev.After, ev.Shape.Key)
	}
	_, s, err := Plan(nil, ev.Shape, PlanOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if k, ok := ev.TableKey(nil, s); !ok || k.String() != changelog.AppendKey(nil, s.KeyTypes(), ev.Key).String() {
		t.Errorf("key %v", k)
	}
}
