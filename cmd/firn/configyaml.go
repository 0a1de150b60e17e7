package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"maps"
	"math"
	"os"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"
)

// decoder fills a Config from YAML, strictly: it goes on after an error, so that all of them are shown at once, each with
// file, line and the nearest valid key.
type decoder struct {
	*problems
	expanded map[string]string // what each reference stands for, to the reference
}

// syntaxLine finds the line in an error of the YAML parser.
var syntaxLine = regexp.MustCompile(`^yaml: line (\d+): `)

func (d *decoder) document(text []byte, cfg *Config) {
	dec := yaml.NewDecoder(bytes.NewReader(text))
	var doc yaml.Node
	if err := dec.Decode(&doc); err != nil {
		if errors.Is(err, io.EOF) {
			return // an empty file: validate says what is missing
		}
		line, text := 1, err.Error()
		if m := syntaxLine.FindStringSubmatch(text); m != nil {
			line, _ = strconv.Atoi(m[1]) // digits
			text = strings.TrimPrefix(text, m[0])
		}
		d.errorf(line, "", "not YAML: %s", strings.TrimPrefix(text, "yaml: "))
		return
	}
	var second yaml.Node
	if err := dec.Decode(&second); !errors.Is(err, io.EOF) {
		d.errorf(max(second.Line, 1), "", "a second YAML document follows the first")
	}
	d.value(doc.Content[0], reflect.ValueOf(cfg).Elem(), "")
	// An override is what its keys say over the defaults, which may stand after it in the file.
	for i := range cfg.Tables.Overrides {
		if n := find(doc.Content[0], "tables", "overrides"); n != nil && i < len(n.Content) {
			o := TableOverride{TableConfig: cfg.Tables.Defaults.clone()}
			known := &problems{lines: d.lines, failed: map[string]bool{}, secrets: d.secrets}
			again := &decoder{problems: known, expanded: d.expanded} // its errors are known already
			again.value(n.Content[i], reflect.ValueOf(&o).Elem(), fmt.Sprintf("tables.overrides[%d]", i))
			cfg.Tables.Overrides[i] = o
		}
	}
}

func (t TableConfig) clone() TableConfig {
	t.Properties, t.Partition = maps.Clone(t.Properties), slices.Clone(t.Partition)
	return t
}

func find(n *yaml.Node, keys ...string) *yaml.Node {
	for _, key := range keys {
		var next *yaml.Node
		for i := 0; i+1 < len(n.Content) && n.Kind == yaml.MappingNode; i += 2 {
			if n.Content[i].Value == key {
				next = n.Content[i+1]
			}
		}
		if next == nil {
			return nil
		}
		n = next
	}
	return n
}

func (d *decoder) value(n *yaml.Node, v reflect.Value, path string) {
	if n.Kind == yaml.AliasNode {
		n = n.Alias
	}
	if n.Tag == "!!null" {
		return // `key:` without a value keeps the default
	}
	switch p := v.Addr().Interface().(type) {
	case *keyRoute:
		d.keyRoute(n, p, path)
		return
	case *SourceConfig:
		*p = defaultSource()
		d.fields(n, v, path)
		return
	case *RouteConfig:
		*p = defaultRoute()
		d.fields(n, v, path)
		return
	case *KafkaConfig:
		*p = defaultKafka()
		d.fields(n, v, path)
		return
	}
	switch v.Kind() {
	case reflect.Struct:
		d.fields(n, v, path)
	case reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		d.value(n, v.Elem(), path)
	case reflect.Slice:
		d.slice(n, v, path)
	case reflect.Map:
		d.strings(n, v, path)
	default:
		if n.Kind != yaml.ScalarNode {
			d.errorf(n.Line, path, "expected one value")
			return
		}
		text, ok := d.expand(n, path)
		if !ok {
			return
		}
		if err := setScalar(v, text); err != nil {
			d.errorf(n.Line, path, "%s %v", d.shown(path, text), err)
		}
	}
}

func (d *decoder) fields(n *yaml.Node, v reflect.Value, path string) {
	if n.Kind != yaml.MappingNode {
		d.errorf(n.Line, path, "expected keys and values")
		return
	}
	known := map[string]reflect.Value{}
	collectFields(v, known)
	seen := map[string]bool{}
	for i := 0; i+1 < len(n.Content); i += 2 {
		key, at := n.Content[i], join(path, n.Content[i].Value)
		field, ok := known[key.Value]
		switch {
		case !ok:
			meant, text := suggestion(key.Value, known)
			if meant != "" {
				d.failed[join(path, meant)] = true // that it is missing is the same mistake
			}
			d.errorf(key.Line, at, "unknown key; %s", text)
		case seen[key.Value]:
			d.errorf(key.Line, at, "key is there twice")
		default:
			seen[key.Value] = true
			d.lines[at] = key.Line
			d.value(n.Content[i+1], field, at)
		}
	}
}

// collectFields maps YAML keys to the fields of a struct; an embedded struct's keys are its parent's.
func collectFields(v reflect.Value, into map[string]reflect.Value) {
	for i := range v.NumField() {
		f := v.Type().Field(i)
		if f.Anonymous {
			collectFields(v.Field(i), into)
		} else if key := f.Tag.Get("yaml"); key != "" {
			into[key] = v.Field(i)
		}
	}
}

func (d *decoder) slice(n *yaml.Node, v reflect.Value, path string) {
	if n.Kind != yaml.SequenceNode {
		d.errorf(n.Line, path, "expected a list")
		return
	}
	v.Set(reflect.MakeSlice(v.Type(), len(n.Content), len(n.Content)))
	for i, item := range n.Content {
		at := fmt.Sprintf("%s[%d]", path, i)
		d.lines[at] = item.Line
		d.value(item, v.Index(i), at)
	}
}

func (d *decoder) strings(n *yaml.Node, v reflect.Value, path string) {
	if n.Kind != yaml.MappingNode {
		d.errorf(n.Line, path, "expected keys and values")
		return
	}
	m := map[string]string{}
	for i := 0; i+1 < len(n.Content); i += 2 {
		key, value := n.Content[i], n.Content[i+1]
		at := join(path, key.Value)
		d.lines[at] = key.Line
		if value.Kind != yaml.ScalarNode {
			d.errorf(value.Line, at, "expected one value")
		} else if text, ok := d.expand(value, at); ok {
			m[key.Value] = text
		}
	}
	v.Set(reflect.ValueOf(m))
}

func (d *decoder) keyRoute(n *yaml.Node, k *keyRoute, path string) {
	if n.Kind == yaml.SequenceNode {
		k.Mode = "columns"
		d.slice(n, reflect.ValueOf(&k.Columns).Elem(), path)
		return
	}
	text, ok := d.expand(n, path)
	if ok && text != "message" && text != "none" {
		d.errorf(n.Line, path, "%s is not message, none or a list of columns", d.shown(path, text))
	}
	k.Mode = text
}

var reference = regexp.MustCompile(`\$\{([^}]*)\}`)

// expand replaces ${ENV} and ${file:PATH} in a scalar.
func (d *decoder) expand(n *yaml.Node, path string) (string, bool) {
	ok := true
	text := reference.ReplaceAllStringFunc(n.Value, func(ref string) (value string) {
		d.secrets[path] = n.Value
		defer func() { d.expanded[value] = ref }()
		name := ref[2 : len(ref)-1]
		if file, isFile := strings.CutPrefix(name, "file:"); isFile {
			b, err := os.ReadFile(file) //nolint:gosec // the operator names the file
			if err != nil {
				ok = false
				d.errorf(n.Line, path, "secret: %v", err)
			}
			return strings.TrimRight(string(b), "\r\n")
		}
		v, set := os.LookupEnv(name)
		if !set {
			ok = false
			d.errorf(n.Line, path, "secret: the environment has no %s", name)
		}
		return v
	})
	return text, ok
}

// setScalar sets v. The error says what text is not, without the text.
func setScalar(v reflect.Value, text string) error {
	switch p := v.Addr().Interface().(type) {
	case *time.Duration:
		dur, err := time.ParseDuration(text)
		if err != nil {
			return errors.New("is no duration: write 500ms, 10s, 5m or 24h")
		}
		*p = dur
		return nil
	case *Size:
		size, ok := parseSize(text)
		if !ok {
			return errNoSize
		}
		*p = size
		return nil
	}
	switch v.Kind() {
	case reflect.String:
		v.SetString(text)
	case reflect.Bool:
		b, err := strconv.ParseBool(text)
		if err != nil {
			return errors.New("is not true or false")
		}
		v.SetBool(b)
	case reflect.Int:
		i, err := strconv.Atoi(text)
		if err != nil {
			return errors.New("is no whole number")
		}
		v.SetInt(int64(i))
	case reflect.Float64:
		f, err := strconv.ParseFloat(text, 64)
		if err != nil {
			return errors.New("is no number")
		}
		v.SetFloat(f)
	default:
		panic(fmt.Sprintf("firn: a setting of type %s", v.Type()))
	}
	return nil
}

var sizeUnits = []struct {
	suffix string
	bytes  int64
}{
	{"TiB", 1 << 40},
	{"GiB", 1 << 30},
	{"MiB", 1 << 20},
	{"KiB", 1 << 10},
	{"TB", 1e12},
	{"GB", 1e9},
	{"MB", 1e6},
	{"kB", 1e3},
	{"B", 1},
}

var errNoSize = errors.New("is no size: write 64MiB, 10GiB, 500kB or a number of bytes")

// UnmarshalText reads 64MiB, 500kB or a plain number of bytes.
func (s *Size) UnmarshalText(text []byte) error {
	size, ok := parseSize(string(text))
	if !ok {
		return fmt.Errorf("%q %w", text, errNoSize)
	}
	*s = size
	return nil
}

func parseSize(text string) (Size, bool) {
	number, unit := strings.TrimSpace(text), int64(1)
	for _, u := range sizeUnits {
		if rest, ok := strings.CutSuffix(number, u.suffix); ok {
			number, unit = strings.TrimSpace(rest), u.bytes
			break
		}
	}
	f, err := strconv.ParseFloat(number, 64)
	if err != nil || !(f >= 0) || f*float64(unit) >= math.MaxInt64 { // NaN, too
		return 0, false
	}
	return Size(f * float64(unit)), true
}

// String writes the size with the largest binary unit that divides it.
func (s Size) String() string {
	for _, u := range sizeUnits[:4] {
		if s != 0 && int64(s)%u.bytes == 0 {
			return strconv.FormatInt(int64(s)/u.bytes, 10) + u.suffix
		}
	}
	return strconv.FormatInt(int64(s), 10)
}

func join(path, key string) string {
	if path == "" {
		return key
	}
	return path + "." + key
}

// suggestion returns the valid key that looks most like the unknown one, "" if none does, and what to say about it.
func suggestion(key string, known map[string]reflect.Value) (meant, text string) {
	best, distance := "", len(key)/2+2
	var all []string
	for k := range known {
		all = append(all, k)
		if n := editDistance(key, k); n < distance || n == distance && k < best {
			best, distance = k, n
		}
	}
	if best != "" {
		return best, fmt.Sprintf("did you mean %s?", best)
	}
	slices.Sort(all)
	return "", "valid keys are " + strings.Join(all, ", ")
}

func editDistance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		last := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := last
			if a[i] != b[j] {
				cost++
			}
			last = row[j+1]
			row[j+1] = min(cost, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}
