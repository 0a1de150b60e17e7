package columns

import (
	"bytes"
	"errors"
	"slices"

	"firn/changelog"
	"firn/ingest/decode"
)

// Applier applies a Set to the events of one decoder. It is not safe for concurrent use.
type Applier struct {
	set      *Set
	programs map[*decode.Shape]*program
	last     *decode.Shape // what lastProgram is of
	program  *program

	arena         []byte
	scratch, sum  []byte
	registers     []changelog.Value
	holes         []bool
	after, before []changelog.Value
	key, other    []changelog.Value
	placeholders  []int
	missing       []string
	told          map[string]bool // the missing that were told
	at            Origin          // of the record at hand
}

// Missing returns, once, what was found about shapes that people should know: expressions read columns that events do not have.
func (a *Applier) Missing() []string {
	m := a.missing
	a.missing = nil
	return m
}

// Applier returns a new applier.
func (s *Set) Applier() *Applier {
	return &Applier{set: s, programs: map[*decode.Shape]*program{}, told: map[string]bool{}}
}

// maxPrograms bounds what is remembered of shapes that do not come any more.
const maxPrograms = 1000

func (a *Applier) of(shape *decode.Shape) *program {
	if a.last == shape {
		return a.program
	}
	p := a.programs[shape]
	if p == nil {
		p = a.set.program(a, shape)
		if len(a.programs) >= maxPrograms {
			clear(a.programs)
		}
		a.programs[shape] = p
		for _, text := range p.missing {
			if !a.told[text] {
				a.told[text] = true
				a.missing = append(a.missing, text)
			}
		}
	}
	a.last, a.program = shape, p
	return p
}

// Event makes a Change what the rules make of it. What it holds then is valid until the next call. Errors: a *decode.Rejected,
// the record has a value that a rule cannot take; a *MisfitError, the rules do not fit the columns.
func (a *Applier) Event(ev *decode.Event, at Origin) error {
	p := a.of(ev.Shape)
	if p.misfit != nil {
		return p.misfit
	}
	const keep = 1 << 20
	if cap(a.arena) > keep {
		a.arena = nil
	}
	a.arena = a.arena[:0]
	a.at = at
	if rejected := a.apply(p, ev, &a.at); rejected != nil {
		return rejected
	}
	return nil
}

func (a *Applier) apply(p *program, ev *decode.Event, at *Origin) *decode.Rejected {
	var rejected *decode.Rejected
	if len(ev.Key) > 0 {
		if a.key, rejected = a.keyOf(p, a.key, ev.Key); rejected != nil {
			return rejected
		}
		ev.Key = a.key
	}
	if rejected = a.otherKeys(p, ev); rejected != nil {
		return rejected
	}
	ev.Shape = p.shape
	if len(ev.Reports) > 0 {
		a.reports(p, ev)
	}
	if p.plain {
		return nil
	}
	if ev.After != nil {
		if len(ev.Placeholders) > 0 {
			if rejected = a.setHoles(p, ev); rejected != nil {
				p.attachKey(rejected, ev.Key)
				return rejected
			}
		}
		if a.after, rejected = a.image(p, a.after, ev.After, ev, at); rejected != nil {
			p.attachKey(rejected, ev.Key)
			return rejected
		}
		ev.After = a.after
		if len(ev.Placeholders) > 0 {
			a.takeHoles(p, ev)
		}
	}
	if ev.Before != nil {
		before, unfit := a.image(p, a.before, ev.Before, ev, nil)
		if a.before, ev.Before = before, before; unfit != nil {
			ev.Before = nil // the change itself is sound: it goes without its old row
		}
	}
	return nil
}

// otherKeys takes the keys that tie the halves of a key change together.
func (a *Applier) otherKeys(p *program, ev *decode.Event) (rejected *decode.Rejected) {
	for _, key := range []*[]changelog.Value{&ev.OldKey, &ev.NewKey} { // at most one of them is set
		if len(*key) == 0 {
			continue
		}
		if a.other, rejected = a.keyOf(p, a.other, *key); rejected != nil {
			return rejected
		}
		*key = a.other
	}
	return nil
}

func (a *Applier) keyOf(p *program, dst, key []changelog.Value) ([]changelog.Value, *decode.Rejected) {
	dst = dst[:0]
	for i, place := range p.keyFrom {
		v := key[place]
		for _, f := range p.keyOps[i] {
			if v.Null {
				break
			}
			var rejected *decode.Rejected
			if v, rejected = f(a, v); rejected != nil {
				return dst, rejected
			}
		}
		dst = append(dst, v)
	}
	return dst, nil
}

// image makes the values of a row. at is nil for the row before, whose metadata are not known.
func (a *Applier) image(p *program, dst, values []changelog.Value, ev *decode.Event, at *Origin) ([]changelog.Value, *decode.Rejected) {
	regs := append(a.registers[:0], values...)
	regs = slices.Grow(regs, p.registers-len(regs))[:p.registers]
	a.registers = regs
	for i := range p.ops {
		o := &p.ops[i]
		switch {
		case o.value != nil:
			regs[o.out] = *o.value
		case o.unary != nil:
			v := regs[o.in]
			if !v.Null {
				var rejected *decode.Rejected
				if v, rejected = o.unary(a, v); rejected != nil {
					return dst, rejected
				}
			}
			regs[o.out] = v
		case o.computed != nil:
			v, rejected := o.computed.eval(a, regs)
			if rejected != nil {
				return dst, rejected
			}
			regs[o.out] = v
		case at == nil:
			regs[o.out] = changelog.NullValue
		default:
			regs[o.out] = metadata[o.meta].of(a, ev, at)
		}
	}
	dst = dst[:0]
	for _, reg := range p.from {
		dst = append(dst, regs[reg])
	}
	return dst, nil
}

// setHoles notes which registers have no value, because the source did not send it. A computed column of which no input was sent keeps
// its value, too; one of which some were sent cannot be computed.
func (a *Applier) setHoles(p *program, ev *decode.Event) *decode.Rejected {
	a.holes = slices.Grow(a.holes[:0], p.registers)[:p.registers]
	clear(a.holes)
	for _, o := range ev.Placeholders {
		a.holes[o] = true
	}
	for i := range p.ops {
		if o := &p.ops[i]; o.unary != nil {
			a.holes[o.out] = a.holes[o.in]
		} else if o.computed != nil {
			hole, rejected := o.computed.hole(a.holes)
			if rejected != nil {
				return rejected
			}
			a.holes[o.out] = hole
		}
	}
	return nil
}

// takeHoles gives ev the columns that have no value.
func (a *Applier) takeHoles(p *program, ev *decode.Event) {
	a.placeholders = a.placeholders[:0]
	for i, reg := range p.from {
		if a.holes[reg] {
			a.placeholders = append(a.placeholders, i)
		}
	}
	ev.Placeholders = a.placeholders
}

// reports gives what was reduced its column's new name. Of a column that is dropped nothing is said, of a masked one not the value.
func (a *Applier) reports(p *program, ev *decode.Event) {
	kept := ev.Reports[:0]
	for _, r := range ev.Reports {
		if r.Column == "" {
			kept = append(kept, r)
			continue
		}
		for i := range p.columns {
			col := &p.columns[i]
			if col.source < 0 || a.sourceName(col) != r.Column {
				continue
			}
			r.Column = col.Name
			if col.masked {
				r.Detail = ""
			}
			kept = append(kept, r)
			break
		}
	}
	ev.Reports = kept
}

func (a *Applier) sourceName(col *column) string { return a.last.Columns[col.source].Name }

// attachKey gives a rejection the record's key. The values outlive the next record.
func (p *program) attachKey(rejected *decode.Rejected, key []changelog.Value) {
	if len(key) != len(p.shape.Key) {
		return
	}
	for i, o := range p.shape.Key {
		v := key[i]
		v.B = bytes.Clone(v.B)
		rejected.KeyColumns = append(rejected.KeyColumns, p.shape.Columns[o])
		rejected.Key = append(rejected.Key, v)
	}
}

// Rejected gives a rejection that a decoder made the key that the rules make of its key.
func (a *Applier) Rejected(rejected *decode.Rejected) {
	if len(rejected.Key) == 0 {
		return
	}
	shape := &decode.Shape{Columns: rejected.KeyColumns}
	for i := range shape.Columns {
		shape.Key = append(shape.Key, i)
	}
	key := rejected.Key
	rejected.KeyColumns, rejected.Key = nil, nil
	p := a.set.program(a, shape)
	if p.misfit != nil {
		return
	}
	a.arena = a.arena[:0]
	if ruled, refused := a.keyOf(p, nil, key); refused == nil {
		p.attachKey(rejected, ruled)
	}
}

// Misfit returns the *MisfitError in err; nil: there is none.
func Misfit(err error) *MisfitError {
	m, _ := errors.AsType[*MisfitError](err)
	return m
}

func (a *Applier) appended(f func(dst []byte) []byte) changelog.Value {
	start := len(a.arena)
	a.arena = f(a.arena)
	return changelog.Value{B: a.arena[start:len(a.arena):len(a.arena)]}
}

// text returns a string's value; null for an empty one.
func (a *Applier) text(s string) changelog.Value {
	if s == "" {
		return changelog.NullValue
	}
	return a.appended(func(dst []byte) []byte { return append(dst, s...) })
}
