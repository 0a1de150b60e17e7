package columns

import (
	"fmt"
	"math"
	"strings"

	"firn/changelog"
	"firn/changelog/rowjson"
	"firn/ingest/decode"
)

// A cast loses nothing: a value that the other type does not have is rejected, and its record parked.
//
//	to string       from every type that is not nested: the text that rows show
//	from string     to every type that is not nested, if the text says a value of it and nothing more: digits that the type has no place for,
//	                the zone of a timestamp without one, a float whose text would be another are rejected. Of key columns the text must be the
//	                one that rows show, so that two keys stay two.
//	int, long       to long, int, decimal, double, float: if it fits
//	decimal         to decimal, long, int: if it fits
//	float, double   to double, float: if it fits
//	date            to timestamp: its midnight
//
// Nothing else is offered: decimals and floats have few values in common, and a zone cannot be made up.

// cast returns how values of a type become values of the rule's.
func (r *rule) cast(from *changelog.Type, key bool) (unary, *changelog.Type, error) {
	to := r.typ
	f := caster(from, to, key)
	if f == nil {
		return nil, nil, fmt.Errorf("is a %s, which cannot be cast to %s without loss", from, to)
	}
	return func(a *Applier, v changelog.Value) (changelog.Value, *decode.Rejected) {
		out, ok := f(a, v)
		if !ok {
			return out, &decode.Rejected{Reason: decode.ReasonCastInexact, Detail: quote(string(rowjson.AppendText(nil, from, v))) + " is no " + to.String()}
		}
		return out, nil
	}, to, nil
}

type castFunc func(a *Applier, v changelog.Value) (changelog.Value, bool)

// caster returns the cast from one type to another; nil: there is none.
func caster(from, to *changelog.Type, key bool) castFunc {
	switch {
	case from.Nested():
		return nil
	case from.Equal(to):
		return func(_ *Applier, v changelog.Value) (changelog.Value, bool) { return v, true }
	case to.Kind == changelog.String:
		return func(a *Applier, v changelog.Value) (changelog.Value, bool) {
			return a.appended(func(dst []byte) []byte { return rowjson.AppendText(dst, from, v) }), true
		}
	case from.Kind == changelog.String:
		return fromText(to, key)
	case from.Kind == changelog.Date && to.Kind == changelog.Timestamp:
		return func(_ *Applier, v changelog.Value) (changelog.Value, bool) {
			const most = math.MaxInt64 / microsPerDay
			return changelog.Value{I: v.I * microsPerDay}, v.I <= most && v.I >= -most
		}
	case isInteger(from):
		return fromInteger(to)
	case from.Kind == changelog.Decimal && (to.Kind == changelog.Decimal || isInteger(to)):
		return fromDecimal(from, to)
	case from.Kind == changelog.Float && to.Kind == changelog.Double:
		return func(_ *Applier, v changelog.Value) (changelog.Value, bool) {
			return changelog.DoubleValue(float64(v.Float())), true
		}
	case from.Kind == changelog.Double && to.Kind == changelog.Float:
		return func(_ *Applier, v changelog.Value) (changelog.Value, bool) {
			f := float32(v.Double())
			return changelog.FloatValue(f), float64(f) == v.Double() || math.IsNaN(v.Double())
		}
	}
	return nil
}

const microsPerDay = 86_400_000_000

func isInteger(t *changelog.Type) bool { return t.Kind == changelog.Int || t.Kind == changelog.Long }

// fromText reads texts. exact demands the text that rows show.
func fromText(to *changelog.Type, exact bool) castFunc {
	exact = exact || to.Kind == changelog.Float || to.Kind == changelog.Double
	return func(a *Applier, v changelog.Value) (changelog.Value, bool) {
		const most = 1024 // no type has a longer text, but binary
		if len(v.B) > most && to.Kind != changelog.Binary {
			return v, false
		}
		text := string(v.B)
		if to.Kind == changelog.Timestamp && hasZone(text) {
			return v, false
		}
		out, err := rowjson.ParseText(to, text)
		if err != nil {
			return v, false
		}
		if exact {
			a.scratch = rowjson.AppendText(a.scratch[:0], to, out)
			return out, string(a.scratch) == text
		}
		return out, true
	}
}

// hasZone reports whether a timestamp's text has a zone after its time.
func hasZone(text string) bool {
	i := strings.IndexAny(text, "Tt ")
	return i >= 0 && strings.ContainsAny(text[i:], "Zz+-")
}

func fromInteger(to *changelog.Type) castFunc {
	switch to.Kind {
	case changelog.Int:
		return func(_ *Applier, v changelog.Value) (changelog.Value, bool) { return v, int64(int32(v.I)) == v.I } //nolint:gosec // compared
	case changelog.Long:
		return func(_ *Applier, v changelog.Value) (changelog.Value, bool) { return v, true }
	case changelog.Double:
		return func(_ *Applier, v changelog.Value) (changelog.Value, bool) {
			return changelog.DoubleValue(float64(v.I)), v.I >= -1<<53 && v.I <= 1<<53
		}
	case changelog.Float:
		return func(_ *Applier, v changelog.Value) (changelog.Value, bool) {
			return changelog.FloatValue(float32(v.I)), v.I >= -1<<24 && v.I <= 1<<24
		}
	case changelog.Decimal:
		return fromDecimal(changelog.Primitive(changelog.Long), to)
	default:
		return nil
	}
}

// fromDecimal casts numbers by their digits, which both types show alike.
func fromDecimal(from, to *changelog.Type) castFunc {
	return func(a *Applier, v changelog.Value) (changelog.Value, bool) {
		a.scratch = rowjson.AppendText(a.scratch[:0], from, v)
		text := string(a.scratch)
		if whole, fraction, point := strings.Cut(text, "."); point && isInteger(to) {
			if strings.Trim(fraction, "0") != "" {
				return v, false
			}
			text = whole
		}
		out, err := rowjson.ParseText(to, text)
		return out, err == nil
	}
}
