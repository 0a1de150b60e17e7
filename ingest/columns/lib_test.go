package columns

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"firn/changelog"
	"firn/changelog/rowjson"
	"firn/ingest/decode"
)

// shapeOf makes a shape of "id! long, email string": key columns are marked.
func shapeOf(t testing.TB, text string) *decode.Shape {
	t.Helper()
	s := &decode.Shape{}
	for i, c := range strings.Split(text, ", ") {
		name, kind, _ := strings.Cut(c, " ")
		typ := changelog.ListOf(changelog.Primitive(changelog.Int))
		if kind != "list" {
			var err error
			if typ, err = ParseType(kind); err != nil {
				t.Fatal(err)
			}
		}
		if bare, key := strings.CutSuffix(name, "!"); key {
			name, s.Key = bare, append(s.Key, i)
		}
		s.Columns = append(s.Columns, decode.Column{Name: name, Type: typ})
	}
	return s
}

// valuesOf reads "1|a|null|?": ? is the placeholder of a value that was not sent.
func valuesOf(t testing.TB, s *decode.Shape, text string) (values []changelog.Value, holes []int) {
	t.Helper()
	for i, v := range strings.Split(text, "|") {
		if v == "?" {
			holes = append(holes, i)
		}
		if v == "?" || v == "null" {
			values = append(values, changelog.NullValue)
			continue
		}
		if s.Columns[i].Type.Nested() {
			values = append(values, changelog.Value{B: changelog.AppendList(nil, s.Columns[i].Type, []changelog.Value{{I: 1}})})
			continue
		}
		value, err := rowjson.ParseText(s.Columns[i].Type, v)
		if err != nil {
			t.Fatal(err)
		}
		values = append(values, value)
	}
	return values, holes
}

// event makes an update of a row.
func event(t testing.TB, s *decode.Shape, before, after string) *decode.Event {
	t.Helper()
	ev := &decode.Event{Op: changelog.OpUpdate, Shape: s, SourceTime: 1767225600123456, Native: "lsn:0/1A2B", Txn: "7", TxnOrder: []byte("3")}
	image := after
	if before != "" {
		ev.Before, _ = valuesOf(t, s, before)
		image = before
	}
	if after != "" {
		ev.After, ev.Placeholders = valuesOf(t, s, after)
		image = after
	} else {
		ev.Op = changelog.OpDelete
	}
	values, _ := valuesOf(t, s, image)
	for _, o := range s.Key {
		ev.Key = append(ev.Key, values[o])
	}
	return ev
}

// show writes an image as "id=1 email=a".
func show(columns []decode.Column, values []changelog.Value, holes []int) string {
	if values == nil {
		return "none"
	}
	var all []string
	for i, v := range values {
		text := "null"
		if !v.Null && columns[i].Type.Nested() {
			text = columns[i].Type.String()
		} else if !v.Null {
			text = string(rowjson.AppendText(nil, columns[i].Type, v))
		}
		for _, h := range holes {
			if h == i {
				text = "?"
			}
		}
		all = append(all, columns[i].Name+"="+text)
	}
	return strings.Join(all, " ")
}

func showShape(s *decode.Shape) string {
	var all []string
	for i, c := range s.Columns {
		mark := ""
		for _, o := range s.Key {
			if o == i {
				mark = "!"
			}
		}
		all = append(all, fmt.Sprintf("%s%s %s", c.Name, mark, c.Type))
	}
	return strings.Join(all, ", ")
}

func keyOf(ev *decode.Event) string {
	var columns []decode.Column
	for _, o := range ev.Shape.Key {
		columns = append(columns, ev.Shape.Columns[o])
	}
	return show(columns, ev.Key, nil)
}

func compile(t testing.TB, o Options) *Set {
	t.Helper()
	s, err := Compile(o)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

var here = Origin{Topic: "shop.public.t", Partition: 2, Offset: 41}

// outcome applies rules to one event, and says what comes of it.
func outcome(t testing.TB, o Options, ev *decode.Event) string {
	t.Helper()
	err := compile(t, o).Applier().Event(ev, here)
	if rejected, ok := errors.AsType[*decode.Rejected](err); ok {
		return rejected.Reason + ": " + rejected.Detail
	}
	if err != nil {
		return err.Error()
	}
	return show(ev.Shape.Columns, ev.After, ev.Placeholders)
}
