package main

import (
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"hash/fnv"
	"math/big"
	"slices"
	"strconv"
	"strings"
	"time"
)

// shop generates the demo's changes: a shop's customers, orders and order items as Debezium's PostgreSQL connector writes them, JSON
// with schemas. Changes come in blocks; a block is a function of its number alone, so that a demo that was killed makes the
// block it was at again, to the byte but for the connector's clock, as a connector does after a crash.
type shop struct {
	tables [3]*shopTable
}

// shopRecord is one record to produce. A nil value is a tombstone.
type shopRecord struct {
	topic      string
	key, value []byte
	change     bool // false for a tombstone
}

// shopRow is a row in the shop's own words: texts as firn's row form shows them, without quotes where they are numbers.
type shopRow []string

type shopColumn struct {
	name, literal, semantic string // Connect type and semantic name
	parameters              string // JSON
	key                     bool
	encode                  func(string) string // row form to Debezium's JSON
}

type shopTable struct {
	name               string
	columns            []shopColumn
	keyHead, valueHead string // schemas, and what comes before a key's and a value's own part
}

const (
	ordersPerBlock = 4
	itemsPerOrder  = 2
	updatesOfBlock = 8
	orderLife      = 30 // blocks from the creation of an order to its deletion, for those that are deleted
	shopTopic      = "shop.public."
	shopEpochUs    = 1_767_225_600_000_000 // 2026-01-01
)

func newShop() *shop {
	plain := func(s string) string { return s }
	quoted := strconv.Quote
	decimal := func(s string) string { return `"` + base64.StdEncoding.EncodeToString(unscaled(s)) + `"` }
	long := func(name string, key bool) shopColumn {
		return shopColumn{name: name, literal: "int64", key: key, encode: plain}
	}
	text := func(name string) shopColumn { return shopColumn{name: name, literal: "string", encode: quoted} }
	money := func(name string) shopColumn {
		return shopColumn{
			name: name, literal: "bytes", semantic: "org.apache.kafka.connect.data.Decimal",
			parameters: `{"scale":"2","connect.decimal.precision":"12"}`, encode: decimal,
		}
	}
	zoned := shopColumn{name: "updated", literal: "string", semantic: "io.debezium.time.ZonedTimestamp", encode: quoted}
	return &shop{tables: [3]*shopTable{
		newShopTable("customers", long("id", true), text("name"), text("email"), money("balance"), zoned),
		newShopTable("orders", long("id", true), long("customer_id", false), text("status"), money("total"), zoned),
		newShopTable("order_items", long("order_id", true),
			shopColumn{name: "line", literal: "int32", key: true, encode: plain}, text("sku"),
			shopColumn{name: "qty", literal: "int32", encode: plain}, money("price")),
	}}
}

func unscaled(amount string) []byte {
	n, ok := new(big.Int).SetString(strings.Replace(amount, ".", "", 1), 10)
	if !ok {
		panic("firn demo: no amount: " + amount)
	}
	b := n.Bytes() // amounts are not negative
	if len(b) == 0 || b[0]&0x80 != 0 {
		b = append([]byte{0}, b...)
	}
	return b
}

func newShopTable(name string, columns ...shopColumn) *shopTable {
	t := &shopTable{name: name, columns: columns}
	var row, key []string
	for _, c := range columns {
		optional := "true"
		if c.key {
			optional = "false"
		}
		f := `{"type":"` + c.literal + `","optional":` + optional
		if c.semantic != "" {
			f += `,"name":"` + c.semantic + `","version":1`
		}
		if c.parameters != "" {
			f += `,"parameters":` + c.parameters
		}
		f += `,"field":"` + c.name + `"}`
		row = append(row, f)
		if c.key {
			key = append(key, f)
		}
	}
	topic := shopTopic + name
	image := func(field string) string {
		return `{"type":"struct","fields":[` + strings.Join(row, ",") + `],"optional":true,"name":"` + topic + `.Value","field":"` + field + `"}`
	}
	t.valueHead = `{"schema":{"type":"struct","fields":[` + image("before") + "," + image("after") + `,` +
		`{"type":"struct","fields":[{"type":"string","optional":false,"field":"version"},{"type":"string","optional":false,"field":"connector"},` +
		`{"type":"string","optional":false,"field":"name"},{"type":"int64","optional":false,"field":"ts_ms"},` +
		`{"type":"string","optional":true,"name":"io.debezium.data.Enum","version":1,"parameters":{"allowed":"true,first,first_in_data_collection,last_in_data_collection,last,false,incremental"},"default":"false","field":"snapshot"},` +
		`{"type":"string","optional":false,"field":"db"},{"type":"string","optional":false,"field":"schema"},{"type":"string","optional":false,"field":"table"},` +
		`{"type":"int64","optional":true,"field":"txId"},{"type":"int64","optional":true,"field":"lsn"}],` +
		`"optional":false,"name":"io.debezium.connector.postgresql.Source","version":1,"field":"source"},` +
		`{"type":"string","optional":false,"field":"op"},{"type":"int64","optional":true,"field":"ts_ms"}],` +
		`"optional":false,"name":"` + topic + `.Envelope","version":2},"payload":{"before":null,"after":`
	t.keyHead = `{"schema":{"type":"struct","fields":[` + strings.Join(key, ",") + `],"optional":false,"name":"` + topic + `.Key"},"payload":`
	return t
}

func (t *shopTable) image(row shopRow, keyOnly bool) string {
	var fields []string
	for i, c := range t.columns {
		if !keyOnly || c.key {
			fields = append(fields, `"`+c.name+`":`+c.encode(row[i]))
		}
	}
	return "{" + strings.Join(fields, ",") + "}"
}

// record renders one change: op is c, u or d; row is the row after it, or the one that goes. lsn is unique.
func (t *shopTable) record(op string, row shopRow, lsn, nowMs int64) shopRecord {
	after := t.image(row, false)
	if op == "d" {
		after = "null"
	}
	value := t.valueHead + after + fmt.Sprintf(`,"source":{"version":"3.6.3.Final","connector":"postgresql","name":"shop","ts_ms":%d,"snapshot":"false",`+
		`"db":"shop","schema":"public","table":"%s","txId":%d,"lsn":%d},"op":"%s","ts_ms":%d}}`, nowMs, t.name, lsn>>8, lsn, op, nowMs)
	return shopRecord{topic: shopTopic + t.name, key: []byte(t.keyHead + t.image(row, true) + "}"), value: []byte(value), change: true}
}

// draw gives a number below n that depends on what it is asked about only.
func draw(n int64, what string, about ...int64) int64 {
	h := fnv.New64a()
	h.Write([]byte(what))
	for _, a := range about {
		h.Write(binary.LittleEndian.AppendUint64(nil, uint64(a))) //nolint:gosec // hashed only
	}
	return int64(h.Sum64() >> 1 % uint64(n)) //nolint:gosec // below n
}

func amount(what string, about ...int64) string {
	cents := draw(1_000_000, what, about...)
	return fmt.Sprintf("%d.%02d", cents/100, cents%100)
}

// shopChange is one change of a block, before it is rendered.
type shopChange struct {
	table int // 0 customers, 1 orders, 2 order_items
	op    string
	row   shopRow
}

func customerRow(id, version int64) shopRow {
	return shopRow{
		strconv.FormatInt(id, 10), "customer " + strconv.FormatInt(id, 10), fmt.Sprintf("c%d@example.com", id),
		amount("balance", id, version), stamp(version),
	}
}

func orderRow(id, version int64) shopRow {
	states := []string{"placed", "paid", "sent", "closed"}
	return shopRow{
		strconv.FormatInt(id, 10), strconv.FormatInt(1+draw((id+3)/4, "customer", id), 10),
		states[draw(4, "status", id, version)], amount("total", id, version), stamp(version),
	}
}

func itemRow(order, line, version int64) shopRow {
	return shopRow{
		strconv.FormatInt(order, 10), strconv.FormatInt(line, 10), fmt.Sprintf("sku-%04d", draw(5000, "sku", order, line)),
		strconv.FormatInt(1+draw(9, "qty", order, line, version), 10), amount("price", order, line),
	}
}

// stamp makes a version's time: a millisecond a version from 2026 on.
func stamp(version int64) string {
	return time.UnixMicro(shopEpochUs + version*1000).UTC().Format("2006-01-02T15:04:05.000000Z")
}

func orderGoes(id int64) bool { return draw(5, "goes", id) == 0 }

func orderAlive(id, block int64) bool {
	born := (id - 1) / ordersPerBlock
	return born <= block && (!orderGoes(id) || born+orderLife > block)
}

// block returns the changes of a block, in order.
func (*shop) block(b int64) []shopChange {
	version := b * 64
	var out []shopChange
	add := func(table int, op string, row shopRow) { out = append(out, shopChange{table, op, row}) }
	add(0, "c", customerRow(b+1, version))
	for i := range int64(ordersPerBlock) {
		id := b*ordersPerBlock + i + 1
		add(1, "c", orderRow(id, version))
		for line := range int64(itemsPerOrder) {
			add(2, "c", itemRow(id, line+1, version))
		}
	}
	for i := range int64(updatesOfBlock) {
		version++
		if id := 1 + draw((b+1)*ordersPerBlock, "update", b, i); orderAlive(id, b) {
			add(1, "u", orderRow(id, version))
			if i%4 == 0 {
				add(2, "u", itemRow(id, 1, version))
			}
		}
	}
	add(0, "u", customerRow(1+draw(b+1, "touch", b), version))
	for i := range int64(ordersPerBlock) {
		id := (b-orderLife)*ordersPerBlock + i + 1
		if b < orderLife || !orderGoes(id) {
			continue
		}
		for line := range int64(itemsPerOrder) {
			add(2, "d", itemRow(id, line+1, 0))
		}
		add(1, "d", orderRow(id, 0))
	}
	return out
}

// records renders a block.
func (s *shop) records(b, nowMs int64) []shopRecord {
	var out []shopRecord
	for i, c := range s.block(b) {
		r := s.tables[c.table].record(c.op, c.row, b<<8|int64(i)+1, nowMs)
		out = append(out, r)
		if c.op == "d" {
			out = append(out, shopRecord{topic: r.topic, key: r.key})
		}
	}
	return out
}

// rows returns what must be in a table after the first blocks: key columns joined by commas to the row in the common row form.
func (s *shop) rows(table int, blocks int64) map[string]string {
	t := s.tables[table]
	rows := map[string]string{}
	for b := range blocks {
		for _, c := range s.block(b) {
			if c.table != table {
				continue
			}
			var key []string
			for i, col := range t.columns {
				if col.key {
					key = append(key, c.row[i])
				}
			}
			if k := strings.Join(key, ","); c.op == "d" {
				delete(rows, k)
			} else {
				rows[k] = t.rowForm(c.row)
			}
		}
	}
	return rows
}

func (t *shopTable) rowForm(row shopRow) string {
	fields := make([]string, len(row))
	for i, c := range t.columns {
		fields[i] = `"` + c.name + `":` + row[i]
		if c.literal == "string" || c.literal == "bytes" {
			fields[i] = `"` + c.name + `":` + strconv.Quote(row[i])
		}
	}
	slices.Sort(fields)
	return "{" + strings.Join(fields, ",") + "}"
}
