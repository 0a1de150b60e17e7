package columns

import (
	"errors"
	"fmt"
	"math"
	"regexp"
	"slices"
	"strings"
	"sync"
	"time"

	"cel.dev/cel-go/cel"
	"cel.dev/cel-go/common/ast"
	"cel.dev/cel-go/common/types"
	"cel.dev/cel-go/common/types/ref"
	"cel.dev/cel-go/ext"

	"firn/changelog"
	"firn/changelog/rowjson"
	"firn/ingest/decode"
)

// Computed columns are expressions of CEL (cel.dev/cel-go, https://cel.dev): its standard library, and the extensions strings and math.
// Nothing in them tells the time or depends on the machine: maps, whose order is not fixed, and named time zones are refused.
//
//	column                          in CEL      result, by its type in CEL
//	boolean                         bool        bool: boolean
//	int, long                       int         int: int, long, decimal
//	float, double                   double      double: double, float
//	string, decimal, time, uuid     string      string: string; decimal, date, time, timestamp, timestamptz, uuid if it is the text of one
//	binary                          bytes       bytes: binary
//	date, timestamp, timestamptz    timestamp   timestamp: timestamptz, timestamp; date at midnight
//
// An expression in which null does not occur is null where a column that it reads is, as in SQL; others see nulls.

// The bounds of an expression. CEL counts steps, and characters that a call reads or makes, after each call: no call may make much of little.
const (
	maxExpr    = 4096     // bytes of its text
	maxInput   = 64 << 10 // bytes of all columns that it reads
	maxCost    = 100_000  // of one evaluation
	maxReplace = 16       // bytes that replace puts in one place, and digits of a formatted number
)

// expression is a parsed expression.
type expression struct {
	text  string
	reads []string // the columns
	nulls bool     // null occurs in it
}

// language returns CEL as the rules have it, without columns.
var language = sync.OnceValues(func() (*cel.Env, error) { //nolint:gochecknoglobals // read only
	return cel.NewCustomEnv(cel.StdLib(), ext.Strings(ext.StringsVersion(5), ext.StringsMaxPrecision(maxReplace)), ext.Math(ext.MathVersion(2)), cel.ParserExpressionSizeLimit(maxExpr), cel.ParserRecursionLimit(64))
})

// typeNames are identifiers of CEL itself.
var typeNames = []string{"bool", "bytes", "double", "duration", "int", "list", "map", "null_type", "string", "timestamp", "type", "uint"}

func parseExpression(text string) (*expression, error) {
	env, err := language()
	if err != nil {
		return nil, err
	}
	parsed, issues := env.Parse(text)
	if issues.Err() != nil {
		return nil, oneLine(issues.Err())
	}
	e := &expression{text: text}
	var bound []string
	names, spaces := map[int64]string{}, map[int64]bool{}
	ast.PostOrderVisit(parsed.NativeRep().Expr(), ast.NewExprVisitor(func(x ast.Expr) {
		switch x.Kind() { //nolint:exhaustive // others hold no names
		case ast.IdentKind:
			names[x.ID()] = x.AsIdent()
		case ast.LiteralKind:
			e.nulls = e.nulls || x.AsLiteral() == types.NullValue
		case ast.ComprehensionKind:
			c := x.AsComprehension()
			bound = append(bound, c.IterVar(), c.IterVar2(), c.AccuVar())
		case ast.MapKind, ast.StructKind:
			err = errors.New("maps and messages are not to be had: their order is not fixed")
		case ast.CallKind:
			c := x.AsCall()
			if bad := checkCall(c); bad != nil {
				err = bad
			}
			if c.IsMemberFunction() && c.Target().Kind() == ast.IdentKind && env.HasFunction(c.Target().AsIdent()+"."+c.FunctionName()) {
				spaces[c.Target().ID()] = true // math.round: no column
			}
		}
	}))
	if err != nil {
		return nil, err
	}
	for id, name := range names {
		if !spaces[id] && !slices.Contains(bound, name) && !slices.Contains(typeNames, name) && !slices.Contains(e.reads, name) {
			e.reads = append(e.reads, name)
		}
	}
	slices.Sort(e.reads)
	return e, nil
}

var fixedZone = regexp.MustCompile(`^(?:UTC|[+-]\d\d:\d\d)$`)

// checkCall refuses zones whose rules the machine knows, as in ts.getHours("Europe/Paris"), and what makes long texts of short ones.
func checkCall(c ast.CallExpr) error {
	if !c.IsMemberFunction() {
		return nil
	}
	literal := func(i int) (string, bool) {
		if x := c.Args()[i]; x.Kind() == ast.LiteralKind {
			text, ok := x.AsLiteral().Value().(string)
			return text, ok
		}
		return "", false
	}
	switch name, n := c.FunctionName(), len(c.Args()); {
	case strings.HasPrefix(name, "get") && n > 0:
		if text, ok := literal(0); !ok || !fixedZone.MatchString(text) {
			return fmt.Errorf("%s takes a fixed zone only, such as \"+02:00\": named zones are the machine's", name)
		}
	case name == "replace" && n > 1:
		if text, ok := literal(1); !ok || len(text) > maxReplace {
			return fmt.Errorf("replace takes a text of at most %d bytes, no column, to put in place of another", maxReplace)
		}
	case name == "join" && n > 0:
		if text, ok := literal(0); !ok || len(text) > maxReplace {
			return fmt.Errorf("join takes a text of at most %d bytes, no column, to put between others", maxReplace)
		}
	}
	return nil
}

// oneLine makes an error of CEL, which draws the place, one line.
func oneLine(err error) error {
	text, _, _ := strings.Cut(strings.TrimPrefix(err.Error(), "ERROR: <input>:"), "\n")
	return errors.New(text)
}

// celType is the type that a column has in expressions; nil: they cannot read it.
func celType(t *changelog.Type) *cel.Type {
	switch t.Kind {
	case changelog.Boolean:
		return cel.BoolType
	case changelog.Int, changelog.Long:
		return cel.IntType
	case changelog.Float, changelog.Double:
		return cel.DoubleType
	case changelog.String, changelog.Decimal, changelog.Time, changelog.UUID:
		return cel.StringType
	case changelog.Binary, changelog.Fixed:
		return cel.BytesType
	case changelog.Date, changelog.Timestamp, changelog.TimestampTZ, changelog.TimestampNS, changelog.TimestampTZNS:
		return cel.TimestampType
	case changelog.Struct, changelog.List, changelog.Map:
	}
	return nil
}

// computed is an expression for the columns of one shape.
type computed struct {
	*expression
	name    string // of the column
	program cel.Program
	inputs  []input
	result  func(a *Applier, v ref.Val) (changelog.Value, bool)
	typ     *changelog.Type
}

// input is a column that an expression reads.
type input struct {
	name string
	reg  int
	typ  *changelog.Type
}

// compute has a rule add a computed column. A column that events do not have is null in its expression.
func (c *compiler) compute(i int, r *rule) {
	col := decode.Column{Name: r.To, Type: r.typ, Fixed: true}
	x := &computed{expression: r.expr, name: r.To, typ: r.typ}
	var vars []cel.EnvOption
	missing := false
	for _, name := range r.expr.reads {
		o := slices.IndexFunc(c.p.columns, func(col column) bool { return col.Name == name })
		if o < 0 {
			missing = true
			c.p.missing = append(c.p.missing, fmt.Sprintf("the expression of column %s reads column %s, which some events do not have: it is null there", quote(r.To), quote(name)))
			c.p.ops = append(c.p.ops, op{in: -1, out: c.p.registers, value: &nullValue})
			vars, x.inputs = append(vars, cel.Variable(name, cel.DynType)), append(x.inputs, input{name, c.p.registers, stringType})
			c.p.registers++
			continue
		}
		typ := c.p.columns[o].Type
		t := celType(typ)
		if t == nil {
			c.misfit(i, "column %s is a %s, which expressions cannot read", quote(name), typ.Kind)
			return
		}
		if r.expr.nulls && t != cel.TimestampType {
			t = cel.NullableType(t)
		}
		vars = append(vars, cel.Variable(name, t))
		x.inputs = append(x.inputs, input{name, c.p.columns[o].reg, typ})
	}
	if missing && !r.expr.nulls {
		c.add(i, col, op{value: &nullValue})
		return
	}
	if err := x.compile(vars, missing); err != nil {
		c.misfit(i, "%s: %v", quote(r.Expr), err)
		return
	}
	c.add(i, col, op{computed: x})
}

var nullValue = changelog.NullValue //nolint:gochecknoglobals // read only

// compile checks the types of an expression. Where it reads columns that are missing, its type may be known only when it is evaluated.
func (x *computed) compile(vars []cel.EnvOption, missing bool) error {
	env, err := language()
	if err != nil {
		return err
	}
	if env, err = env.Extend(vars...); err != nil {
		return err
	}
	checked, issues := env.Compile(x.text)
	if issues.Err() != nil {
		return oneLine(issues.Err())
	}
	if x.result = resultOf(checked.OutputType(), x.typ); missing && checked.OutputType().IsExactType(cel.DynType) {
		x.result = x.dynamicResult
	}
	if x.result == nil {
		return fmt.Errorf("its type is %s, of which no %s can be made", checked.OutputType(), x.typ)
	}
	x.program, err = env.Program(checked, cel.EvalOptions(cel.OptOptimize), cel.CostLimit(maxCost))
	return err
}

// resultOf returns how results of a type of CEL become values; nil: they do not.
func resultOf(from *cel.Type, to *changelog.Type) func(a *Applier, v ref.Val) (changelog.Value, bool) {
	is := func(t *cel.Type) bool { return from.IsExactType(t) || from.IsExactType(cel.NullableType(t)) }
	switch {
	case is(cel.BoolType) && to.Kind == changelog.Boolean:
		return func(_ *Applier, v ref.Val) (changelog.Value, bool) {
			b, ok := v.(types.Bool)
			if b {
				return changelog.Value{I: 1}, ok
			}
			return changelog.Value{}, ok
		}
	case is(cel.IntType) && (isInteger(to) || to.Kind == changelog.Decimal):
		cast := fromInteger(to)
		return func(a *Applier, v ref.Val) (changelog.Value, bool) {
			n, ok := v.(types.Int)
			out, fits := cast(a, changelog.Value{I: int64(n)})
			return out, ok && fits
		}
	case is(cel.DoubleType) && (to.Kind == changelog.Double || to.Kind == changelog.Float):
		cast := caster(doubleType, to, false)
		return func(a *Applier, v ref.Val) (changelog.Value, bool) {
			f, ok := v.(types.Double)
			out, fits := cast(a, changelog.DoubleValue(float64(f)))
			return out, ok && fits
		}
	case is(cel.BytesType) && to.Kind == changelog.Binary:
		return func(_ *Applier, v ref.Val) (changelog.Value, bool) {
			b, ok := v.(types.Bytes)
			return changelog.Value{B: b}, ok
		}
	case is(cel.StringType):
		return textResult(to)
	case is(cel.TimestampType):
		return momentResult(to)
	}
	return nil
}

func (x *computed) dynamicResult(a *Applier, v ref.Val) (changelog.Value, bool) {
	if t, ok := v.Type().(*cel.Type); ok {
		if f := resultOf(t, x.typ); f != nil {
			return f(a, v)
		}
	}
	return changelog.Value{}, false
}

func textResult(to *changelog.Type) func(a *Applier, v ref.Val) (changelog.Value, bool) {
	cast := caster(stringType, to, false)
	switch to.Kind {
	case changelog.String, changelog.Decimal, changelog.Date, changelog.Time, changelog.Timestamp, changelog.TimestampTZ, changelog.UUID:
	default:
		return nil
	}
	return func(a *Applier, v ref.Val) (changelog.Value, bool) {
		s, ok := v.(types.String)
		if !ok {
			return changelog.Value{}, false
		}
		return cast(a, a.appended(func(dst []byte) []byte { return append(dst, s...) }))
	}
}

func momentResult(to *changelog.Type) func(a *Applier, v ref.Val) (changelog.Value, bool) {
	switch to.Kind {
	case changelog.Timestamp, changelog.TimestampTZ, changelog.Date:
	default:
		return nil
	}
	return func(_ *Applier, v ref.Val) (changelog.Value, bool) {
		t, ok := v.(types.Timestamp)
		if !ok || t.Nanosecond()%1000 != 0 {
			return changelog.Value{}, false
		}
		us := t.UnixMicro()
		if to.Kind != changelog.Date {
			return changelog.Value{I: us}, true
		}
		return changelog.Value{I: us / microsPerDay}, us%microsPerDay == 0
	}
}

// eval computes the value of a row whose columns are in the registers.
func (x *computed) eval(a *Applier, regs []changelog.Value) (changelog.Value, *decode.Rejected) {
	if !x.nulls {
		for i := range x.inputs {
			if regs[x.inputs[i].reg].Null {
				return changelog.NullValue, nil
			}
		}
	}
	size := 0
	for i := range x.inputs {
		if size += len(regs[x.inputs[i].reg].B); size > maxInput {
			return changelog.Value{}, x.reject("the columns that it reads have over %d bytes", maxInput)
		}
	}
	row := row{a: a, inputs: x.inputs, registers: regs}
	out, _, err := x.program.Eval(&row)
	switch {
	case row.unreadable != "":
		return changelog.Value{}, x.reject("column %s has a value that expressions cannot read: years are 1 to 9999", quote(row.unreadable))
	case err != nil:
		return changelog.Value{}, x.reject("%s", quoteCut(err.Error()))
	case out == types.NullValue:
		return changelog.NullValue, nil
	}
	v, ok := x.result(a, out)
	if !ok {
		return v, x.reject("its result %s is no %s", quote(fmt.Sprint(out.Value())), x.typ)
	}
	return v, nil
}

// hole reports whether the value is to be kept, because no column that it is made of was sent.
func (x *computed) hole(holes []bool) (bool, *decode.Rejected) {
	n, first := 0, ""
	for _, in := range x.inputs {
		if holes[in.reg] {
			n++
			first = orElse(first, in.name)
		}
	}
	if n > 0 && n < len(x.inputs) {
		return false, x.reject("column %s was not sent, others were: it takes whole rows (REPLICA IDENTITY FULL)", quote(first))
	}
	return n > 0, nil
}

func (x *computed) reject(format string, args ...any) *decode.Rejected {
	return &decode.Rejected{Reason: decode.ReasonExpression, Detail: fmt.Sprintf("column %s = %s: %s", quote(x.name), quote(x.text), fmt.Sprintf(format, args...))}
}

// quoteCut cuts a text of CEL, which may hold values, to a bound.
func quoteCut(s string) string {
	const most = 160
	if len(s) > most {
		return strings.ToValidUTF8(s[:most], "") + "…"
	}
	return s
}

// row is the columns of a row as an expression asks for them. It implements cel.Activation.
type row struct {
	a          *Applier
	inputs     []input
	registers  []changelog.Value
	unreadable string // the column whose value CEL does not have
}

// ResolveName implements cel.Activation.
func (r *row) ResolveName(name string) (any, bool) {
	for i := range r.inputs {
		if in := &r.inputs[i]; in.name == name {
			v, ok := r.a.celValue(in.typ, r.registers[in.reg])
			if !ok {
				r.unreadable = name
			}
			return v, true
		}
	}
	return nil, false
}

// Parent implements cel.Activation.
func (*row) Parent() cel.Activation { return nil }

// celValue makes a value one of CEL; false: it has none.
func (a *Applier) celValue(t *changelog.Type, v changelog.Value) (ref.Val, bool) {
	if v.Null {
		return types.NullValue, true
	}
	switch t.Kind {
	case changelog.Boolean:
		return types.Bool(v.I != 0), true
	case changelog.Int, changelog.Long:
		return types.Int(v.I), true
	case changelog.Float:
		return types.Double(v.Float()), true
	case changelog.Double:
		return types.Double(v.Double()), true
	case changelog.String:
		return types.String(v.B), true
	case changelog.Binary, changelog.Fixed:
		return types.Bytes(v.B), true
	case changelog.Date:
		if v.I > math.MaxInt64/microsPerDay || v.I < math.MinInt64/microsPerDay {
			return types.NullValue, false
		}
		return moment(time.UnixMicro(v.I * microsPerDay))
	case changelog.Timestamp, changelog.TimestampTZ:
		return moment(time.UnixMicro(v.I))
	case changelog.TimestampNS, changelog.TimestampTZNS:
		return moment(time.Unix(0, v.I))
	default:
		a.scratch = rowjson.AppendText(a.scratch[:0], t, v)
		return types.String(a.scratch), true
	}
}

// moment is a time as CEL has it: from year 1 to 9999.
func moment(t time.Time) (ref.Val, bool) {
	t = t.UTC()
	if y := t.Year(); y < 1 || y > 9999 {
		return types.NullValue, false
	}
	return types.Timestamp{Time: t}, true
}
