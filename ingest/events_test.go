package ingest_test

import (
	"fmt"
	"strings"

	"firn/changelog"
	"firn/ingest"
	"firn/ingest/file"
)

// maker makes the records of one topic, as a PostgreSQL connector with schemas would.
type maker struct {
	topic   string
	idType  string // of the key column: int32 or int64
	columns string // "name:type,…" beside id
	place   *file.Partitioner
	lsn     int64
	records []ingest.Record
}

const hole = `"__debezium_unavailable_value"`

func newMaker(topic string, partitions int32) *maker {
	return &maker{topic: topic, idType: "int32", columns: "v:int64,note:string", place: file.NewPartitioner(partitions), lsn: 1000}
}

func (m *maker) keyText(id int64) string {
	return fmt.Sprintf(`{"schema":{"type":"struct","fields":[{"type":%q,"optional":false,"field":"id"}],"optional":false,"name":"%s.Key"},"payload":{"id":%d}}`, m.idType, m.topic, id)
}

// add adds a change. after is the rest of the new row, `"v":1,"note":"x"`; empty for a delete.
func (m *maker) add(op string, id int64, after string, headers ...changelog.Header) {
	m.lsn++
	m.addAt(m.lsn, op, id, after, headers...)
}

func (m *maker) addAt(lsn int64, op string, id int64, after string, headers ...changelog.Header) {
	fields := fmt.Sprintf(`{"type":%q,"optional":false,"field":"id"}`, m.idType)
	for c := range strings.SplitSeq(m.columns, ",") {
		name, typ, _ := strings.Cut(c, ":")
		fields += fmt.Sprintf(`,{"type":%q,"optional":true,"field":%q}`, typ, name)
	}
	row := "null"
	if after != "" {
		row = fmt.Sprintf(`{"id":%d,%s}`, id, after)
	}
	m.raw(m.keyText(id), fmt.Sprintf(`{"schema":{"type":"struct","fields":[`+
		`{"type":"struct","fields":[%[1]s],"optional":true,"name":"V","field":"before"},`+
		`{"type":"struct","fields":[%[1]s],"optional":true,"name":"V","field":"after"},`+
		`{"type":"struct","fields":[{"type":"string","optional":false,"field":"connector"},{"type":"string","optional":false,"field":"name"},`+
		`{"type":"int64","optional":false,"field":"ts_ms"},{"type":"string","optional":true,"field":"snapshot"},{"type":"string","optional":false,"field":"db"},`+
		`{"type":"string","optional":false,"field":"schema"},{"type":"string","optional":false,"field":"table"},{"type":"int64","optional":true,"field":"txId"},`+
		`{"type":"int64","optional":true,"field":"lsn"}],"optional":false,"name":"io.debezium.connector.postgresql.Source","field":"source"},`+
		`{"type":"string","optional":false,"field":"op"},{"type":"int64","optional":true,"field":"ts_ms"}],"optional":false,"name":"%[2]s.Envelope"},`+
		`"payload":{"before":null,"after":%[3]s,"source":{"connector":"postgresql","name":"n","ts_ms":1767225600000,"snapshot":"false","db":"d","schema":"public","table":"t","txId":7,"lsn":%[4]d},"op":%[5]q,"ts_ms":1767225600001}}`,
		fields, m.topic, row, lsn, op), headers...)
}

func (m *maker) raw(key, value string, headers ...changelog.Header) {
	r := ingest.Record{Topic: m.topic, Timestamp: 1767225600000 + m.lsn, Headers: headers}
	if key != "" {
		r.Key = []byte(key)
	}
	if value != "" {
		r.Value = []byte(value)
	}
	m.place.Place(&r)
	m.records = append(m.records, r)
}

// move moves a row to another key: both halves at one position.
func (m *maker) move(from, to int64, after string) {
	m.lsn++
	lsn := m.lsn
	m.addAt(lsn, "d", from, "", changelog.Header{Key: "__debezium.newkey", Value: fmt.Appendf(nil, `{"id":%d}`, to)})
	m.addAt(lsn, "c", to, after, changelog.Header{Key: "__debezium.oldkey", Value: fmt.Appendf(nil, `{"id":%d}`, from)})
}

// table is where the topic goes.
func (m *maker) table() string { return ingest.TableName(m.topic) }
