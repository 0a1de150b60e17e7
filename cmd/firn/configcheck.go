package main

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"net"
	"regexp"
	"regexp/syntax"
	"slices"
	"strconv"
	"strings"
	"time"

	"firn/changelog/mixed"
	"firn/ingest/decode"
	"firn/ingest/registry"
)

// problems gathers all that is wrong with a configuration file, each with its line, so that they are shown at once. What
// came out of ${…} is never shown: its reference stands for it.
type problems struct {
	file    string
	lines   map[string]int    // of the keys and list items that the file has, by path
	secrets map[string]string // by path: values with ${…} as the file has them
	failed  map[string]bool   // paths that have an error
	found   []problem
}

type problem struct {
	line int
	text string
}

// errorf adds an error of a line.
func (p *problems) errorf(line int, path, format string, args ...any) {
	p.failed[path] = true
	text := fmt.Sprintf(format, args...)
	if path != "" {
		text = path + ": " + text
	}
	p.found = append(p.found, problem{line, text})
}

// err joins what was found, by line; nil if nothing was.
func (p *problems) err() error {
	slices.SortStableFunc(p.found, func(a, b problem) int { return cmp.Compare(a.line, b.line) })
	var errs []error
	for _, f := range p.found {
		errs = append(errs, fmt.Errorf("%s:%d: %s", p.file, f.line, f.text))
	}
	return errors.Join(errs...)
}

// wrong adds an error of what the file says, or does not say, at path. Where the decoder has found something already,
// around path or within, it adds nothing: what it would speak of is not what the file says.
func (p *problems) wrong(path, format string, args ...any) {
	for f := range p.failed {
		if within(path, f) || within(f, path) {
			return
		}
	}
	p.found = append(p.found, problem{p.line(path), path + ": " + fmt.Sprintf(format, args...)})
}

// bad is wrong with the value in front.
func (p *problems) bad(path string, value any, format string, args ...any) {
	p.wrong(path, "%s %s", p.shown(path, value), fmt.Sprintf(format, args...))
}

func (p *problems) oneOf(path, value string, allowed ...string) {
	switch {
	case slices.Contains(allowed, value):
	case len(allowed) == 1:
		p.bad(path, value, "is not %s, the only one so far", allowed[0])
	default:
		p.bad(path, value, "is not one of %s", strings.Join(slices.DeleteFunc(allowed, func(s string) bool { return s == "" }), ", "))
	}
}

// atLeast checks the lower bound of durations, sizes and numbers.
func atLeast[T cmp.Ordered](p *problems, path string, have, least T) {
	if have < least {
		p.bad(path, have, "is less than %v", least)
	}
}

// regexp compiles an anchored expression; nil: it is none.
func (p *problems) regexp(path, expr, of string) *regexp.Regexp {
	if expr == "" {
		p.wrong(path, "must be a regular expression of %s", of)
		return nil
	}
	_, err := regexp.Compile(expr)
	if err == nil {
		var re *regexp.Regexp
		if re, err = anchored(expr); err == nil {
			return re
		}
	}
	why := "it cannot be anchored"
	if s, ok := errors.AsType[*syntax.Error](err); ok {
		why = s.Code.String()
		if p.secrets[path] == "" && !strings.HasPrefix(s.Expr, "^(?:") {
			why += ": `" + s.Expr + "`"
		}
	}
	p.bad(path, expr, "is no regular expression: %s", why)
	return nil
}

// shown is a value as messages show it.
func (p *problems) shown(path string, value any) string {
	if raw, ok := p.secrets[path]; ok {
		return strconv.Quote(maskURI(raw))
	}
	if text, ok := value.(string); ok {
		return strconv.Quote(visible(path, text))
	}
	return fmt.Sprint(value)
}

// line returns the line of path, or of the nearest of what is around it.
func (p *problems) line(path string) int {
	for path != "" {
		if line, ok := p.lines[path]; ok {
			return line
		}
		path = path[:max(strings.LastIndexAny(path, ".["), 0)]
	}
	return 1
}

// within reports whether path is outer or a part of it.
func within(path, outer string) bool {
	rest, ok := strings.CutPrefix(path, outer)
	return ok && (rest == "" || outer == "" || rest[0] == '.' || rest[0] == '[')
}

func (c *Config) validate(p *problems) {
	if c.Data == "" {
		p.wrong("data", "must name a directory")
	}
	c.Listen.validate(p)
	c.Catalog.validate(p)
	if len(c.Sources) == 0 {
		p.wrong("sources", "at least one source is needed")
	}
	names := map[string]bool{}
	for i := range c.Sources {
		s, path := &c.Sources[i], fmt.Sprintf("sources[%d]", i)
		if s.Name == "" || strings.ContainsAny(s.Name, "/:") {
			p.bad(path+".name", s.Name, "is no name of a source: it must be there, without / and :")
		}
		if names[s.Name] {
			p.bad(path+".name", s.Name, "is there twice")
		}
		names[s.Name] = true
		s.validate(path, p)
	}
	c.Tables.Defaults.validate(p, func(key string) string { return "tables.defaults." + key })
	for i, o := range c.Tables.Overrides {
		path := fmt.Sprintf("tables.overrides[%d]", i)
		p.regexp(path+".match", o.Match, "table names (namespace.table)")
		o.validate(p, func(key string) string {
			at := path + "." + key
			if _, own := p.lines[at]; !own { // it is that of the defaults, and told there
				return ""
			}
			return at
		})
	}
	if strings.ContainsFunc(c.Parked.Table, func(r rune) bool {
		return r != '_' && (r < '0' || r > '9') && (r < 'a' || r > 'z') && (r < 'A' || r > 'Z')
	}) {
		p.bad("parked.table", c.Parked.Table, "is no last part of a table name: letters, digits and _ (empty: no table)")
	}
	atLeast(p, "limits.memory", c.Limits.Memory, 64<<20)
	atLeast(p, "limits.disk", c.Limits.Disk, 64<<20)
	atLeast(p, "limits.parked", c.Limits.Parked, 1<<20)
	atLeast(p, "limits.connections", c.Limits.Connections, 1)
	p.oneOf("log.level", c.Log.Level, "debug", "info", "warn", "error")
	p.oneOf("log.format", c.Log.Format, "text", "json")
}

func (p *problems) hints(path, file string) {
	if _, err := readHints(file); err != nil {
		p.wrong(path, "%s", err)
	}
}

func (l ListenConfig) validate(p *problems) {
	host, port, ok := hostPort(l.Data)
	if !ok {
		p.bad("listen.data", l.Data, "is not HOST:PORT with a port between 0 and 65535")
	}
	adminHost, adminPort, adminOK := hostPort(l.Admin)
	if !adminOK {
		p.bad("listen.admin", l.Admin, "is not HOST:PORT with a port between 0 and 65535")
	}
	if ok && adminOK && port == adminPort && port != 0 && (host == adminHost || host == "" || adminHost == "") {
		p.bad("listen.admin", l.Admin, "is the address of listen.data, too: each listener needs its own")
	}
}

// hostPort splits an address. host is "" for all of the machine's addresses.
func hostPort(addr string) (host string, port uint64, ok bool) {
	host, text, err := net.SplitHostPort(addr)
	if err != nil || strings.ContainsAny(host, "/ ") {
		return "", 0, false
	}
	if port, err = strconv.ParseUint(text, 10, 16); err != nil {
		return "", 0, false
	}
	switch {
	case host == "localhost":
		host = "127.0.0.1"
	case net.ParseIP(host).IsUnspecified():
		host = ""
	}
	return host, port, true
}

func (s *SourceConfig) validate(path string, p *problems) {
	switch {
	case s.Kafka == nil && s.File == nil, s.Kafka != nil && s.File != nil:
		p.wrong(path, "exactly one of kafka and file must be there")
	case s.Kafka != nil:
		s.Kafka.validate(path+".kafka", p)
		if len(s.Topics) == 0 {
			p.wrong(path+".topics", "at least one expression is needed, such as 'shop\\..*'")
		}
	default:
		s.File.validate(path+".file", p)
	}
	for i, e := range s.Topics {
		p.regexp(fmt.Sprintf("%s.topics[%d]", path, i), e, "topics")
	}
	for i, e := range s.Exclude {
		p.regexp(fmt.Sprintf("%s.exclude[%d]", path, i), e, "topics")
	}
	p.oneOf(path+".format", s.Format, valueFormats...)
	p.oneOf(path+".key_format", s.KeyFmt, append([]string{""}, formats...)...)
	s.validateRegistry(path, p)
	p.oneOf(path+".schema", s.Schema, "auto", "always", "never")
	if s.Format == "json_schema" && s.Schema == "never" {
		p.bad(path+".schema", s.Schema, "contradicts format json_schema")
	}
	s.validateShape(path, p)
	p.oneOf(path+".identity", s.Identity, "auto", "full", "default")
	p.oneOf(path+".replay_filter", s.ReplayFilter, "exact", "off")
	p.oneOf(path+".keyless", s.Keyless, "append", "reject_changes", "full_row")
	p.oneOf(path+".on_parked", s.OnParked, "queue", "supersede")
	atLeast(p, path+".max_rejected_run", s.MaxRejectedRun, 0)
	atLeast(p, path+".dlq_max_bytes", s.DLQMaxBytes, 64<<10)
	if s.MaxRejectedShare < 0 || s.MaxRejectedShare > 1 {
		p.bad(path+".max_rejected_share", s.MaxRejectedShare, "is not between 0 and 1")
	}
	p.oneOf(path+".keyless_resnapshot", s.KeylessResnapshot, "stop", "reload")
	p.oneOf(path+".on_truncate", s.OnTruncate, "apply", "ignore")
	p.oneOf(path+".infinity", s.Infinity, "null", "clamp", "reject")
	if s.ReplayWindow < 0 || s.ReplayWindow > 10_000_000 {
		p.bad(path+".replay_window", s.ReplayWindow, "is not between 0 and 10000000")
	}
	if o := (decode.Options{Placeholder: s.Placeholder}); o.Validate() != nil {
		p.bad(path+".placeholder", s.Placeholder, "is not hex: and pairs of hexadecimal digits")
	}
	atLeast(p, path+".max_record_bytes", s.MaxRecordBytes, 1)
	atLeast(p, path+".discovery_interval", s.DiscoveryInterval, 100*time.Millisecond)
	p.hints(path+".hints", s.Hints)
	for i, r := range s.Routes {
		r.validate(fmt.Sprintf("%s.routes[%d]", path, i), p)
		r.validateColumns(s, fmt.Sprintf("%s.routes[%d].columns", path, i), p)
	}
}

// validateShape checks what says how values are read.
func (s *SourceConfig) validateShape(path string, p *problems) {
	p.oneOf(path+".shape", s.Shape, append([]string{"envelope", "flattened", "plain", "outbox"}, foreignShapes...)...)
	p.oneOf(path+".payload", s.Payload, "text", "expanded", "binary")
	p.oneOf(path+".documents", s.Documents, "columns", "text")
	p.oneOf(path+".deletes", s.Deletes, "tombstone", "delete-to-tombstone", "rewrite", "rewrite-with-tombstone", "drop")
	p.oneOf(path+".connector", s.Connector, "", "postgresql", "mysql", "mariadb", "sqlserver", "oracle", "db2")
	for _, name := range slices.Sorted(maps.Keys(s.Metadata)) {
		o := decode.Options{Form: decode.FormFlattened, Metadata: map[string]string{name: s.Metadata[name]}}
		if s.Shape == "outbox" {
			if o.Form = decode.FormOutbox; o.Validate() != nil {
				p.bad(path+".metadata."+name, s.Metadata[name], "is not id, type, aggregatetype, aggregateid or header, of a name other than payload")
			}
		} else if o.Validate() != nil {
			p.bad(path+".metadata."+name, s.Metadata[name], "is not op, deleted, ts_ms, ts_us, ts_ns, transaction.id, transaction.total_order, transaction.data_collection_order or source.MEMBER")
		}
	}
	switch {
	case s.Shape != "flattened" && s.Deletes != "tombstone":
		p.bad(path+".deletes", s.Deletes, "is of shape flattened only")
	case s.Shape != "flattened" && s.Shape != "outbox" && len(s.Metadata) > 0:
		p.wrong(path+".metadata", "is of shapes flattened and outbox only")
	case s.Shape != "outbox" && s.Payload != "text":
		p.bad(path+".payload", s.Payload, "is of shape outbox only")
	case s.Shape != "envelope" && s.Documents != "columns":
		p.bad(path+".documents", s.Documents, "is of shape envelope only")
	case s.Shape == "outbox" && s.Connector != "":
		p.bad(path+".connector", s.Connector, "is not of shape outbox: payloads tell no source")
	case s.Shape == "envelope" && s.Connector != "":
		p.bad(path+".connector", s.Connector, "is not of shape envelope: its source blocks tell")
	case (s.Shape == "canal" || s.Shape == "maxwell") && s.Connector != "":
		p.bad(path+".connector", s.Connector, "is not of this shape, which reads MySQL only")
	case s.foreign() && (s.Schema == "always" || !s.onlyJSON()):
		p.bad(path+".shape", s.Shape, "is JSON without schemas: format: json, without schema: always")
	case s.Shape != "envelope" && (s.uses("", "_avro") || s.uses("", "_protobuf")):
		p.bad(path+".shape", s.Shape, "is read from JSON only")
	case s.Shape == "outbox" && (s.uses("confluent_", "") || s.uses("apicurio_", "")):
		p.bad(path+".shape", s.Shape, "is read from JSON without a registry only")
	}
	for i, r := range s.Routes {
		if s.Shape == "outbox" && r.Key.Mode == "message" {
			p.bad(fmt.Sprintf("%s.routes[%d].key", path, i), "message", "is not of shape outbox: each event adds a row; none, or [id]")
		}
	}
}

// foreignShapes are the envelopes of other capture tools.
var foreignShapes = []string{"canal", "maxwell", "ogg", "dms"}

func (s *SourceConfig) foreign() bool { return slices.Contains(foreignShapes, s.Shape) }

// onlyJSON reports whether values of the source, and of all routes, are of format json.
func (s *SourceConfig) onlyJSON() bool {
	return s.Format == "json" && !slices.ContainsFunc(s.Routes, func(r RouteConfig) bool { return r.Format != "" && r.Format != "json" })
}

// formats are the formats of keys and values.
var formats = []string{"json", "json_schema", "confluent_avro", "apicurio_avro", "confluent_jsonschema", "apicurio_json", "confluent_protobuf", "apicurio_protobuf"}

// valueFormats are the formats of values: keys are no CloudEvents.
var valueFormats = append(slices.Clone(formats), "cloudevents_json", "cloudevents_avro")

// validateRegistry checks the registry, which must be there where a format takes one.
func (s *SourceConfig) validateRegistry(path string, p *problems) {
	r := &s.Registry
	p.oneOf(path+".registry.apicurio.id_width", r.Apicurio.Width, "4", "8", "auto")
	p.oneOf(path+".registry.apicurio.id_kind", r.Apicurio.Kind, "contentId", "globalId")
	p.oneOf(path+".registry.apicurio.protobuf_ref", r.Apicurio.Ref, "delimited", "indexes", "none")
	if (r.TLS.Cert == "") != (r.TLS.Key == "") {
		p.wrong(path+".registry.tls", "cert and key go together")
	}
	confluent, apicurio := s.uses("confluent_", "") || s.uses("cloudevents_avro", ""), s.uses("apicurio_", "")
	switch {
	case r.URL == "" && (confluent || apicurio):
		p.wrong(path+".registry.url", "is needed: a format of this source has its schemas in a registry")
	case confluent && apicurio:
		p.wrong(path+".registry.url", "serves formats confluent_… or apicurio_…: read the topics of the others as another source")
	case r.URL != "":
		if err := (&registry.Options{URL: r.URL}).Validate(); err != nil {
			p.bad(path+".registry.url", r.URL, "is not http(s)://HOST:PORT/PATH")
		}
	}
}

// uses reports whether keys or values of the source, or of a route, have a format whose name begins and ends so.
func (s *SourceConfig) uses(begin, end string) bool {
	is := func(format string) bool { return strings.HasPrefix(format, begin) && strings.HasSuffix(format, end) }
	return is(s.Format) || is(s.KeyFmt) || slices.ContainsFunc(s.Routes, func(r RouteConfig) bool { return is(r.Format) || is(r.KeyFmt) })
}

func (k *KafkaConfig) validate(path string, p *problems) {
	if len(k.Brokers) == 0 {
		p.wrong(path+".brokers", "at least one broker is needed")
	}
	for i, b := range k.Brokers {
		if _, port, ok := hostPort(b); !ok || port == 0 {
			p.bad(fmt.Sprintf("%s.brokers[%d]", path, i), b, "is not HOST:PORT with a port between 1 and 65535")
		}
	}
	atLeast(p, path+".session_timeout", k.Session, time.Second)
	p.oneOf(path+".start", k.Start, "earliest", "latest")
	p.oneOf(path+".sasl.mechanism", k.SASL.Mechanism, "", "plain", "scram-sha-256", "scram-sha-512")
	if k.SASL.Mechanism != "" && k.SASL.User == "" {
		p.wrong(path+".sasl.user", "is needed for sasl.mechanism")
	}
	if k.SASL.Mechanism == "" && (k.SASL.User != "" || k.SASL.Password != "") {
		p.wrong(path+".sasl.mechanism", "is needed: plain, scram-sha-256 or scram-sha-512")
	}
	if (k.TLS.Cert == "") != (k.TLS.Key == "") {
		p.wrong(path+".tls", "cert and key go together")
	}
}

func (f *FileConfig) validate(path string, p *problems) {
	if f.Path == "" {
		p.wrong(path+".path", "must name a file")
	}
	if f.Follow && strings.HasSuffix(f.Path, ".gz") {
		p.wrong(path+".follow", "a gzip file cannot be followed")
	}
}

func (r RouteConfig) validate(path string, p *problems) {
	re := p.regexp(path+".topic", r.Topic, "topics")
	namespace, table, ok := strings.Cut(r.Table, ".")
	switch {
	case !ok || namespace == "" || table == "" || strings.Contains(table, "."):
		p.bad(path+".table", r.Table, "is not namespace.table")
	case re != nil && !hasGroups(re, r.Table):
		p.bad(path+".table", r.Table, "names a group that topic does not have: it has %d", re.NumSubexp())
	}
	if r.Key.Mode == "columns" && len(r.Key.Columns) == 0 {
		p.wrong(path+".key", "a list of columns must not be empty")
	}
	p.hints(path+".hints", r.Hints)
	p.oneOf(path+".format", r.Format, append([]string{""}, valueFormats...)...)
	p.oneOf(path+".key_format", r.KeyFmt, append([]string{""}, formats...)...)
	if r.Keyless != "" {
		p.oneOf(path+".keyless", r.Keyless, "append", "reject_changes", "full_row")
	}
	if r.OnParked != "" {
		p.oneOf(path+".on_parked", r.OnParked, "queue", "supersede")
	}
	if err := (&decode.PlanOptions{Renames: r.Renames, Drops: r.Drops}).Validate(); err != nil {
		p.wrong(path, "%s", strings.ReplaceAll(err.Error(), "\n", "; "))
	}
}

var (
	templateNumber = regexp.MustCompile(`\$(\d+)`)
	templateGroup  = regexp.MustCompile(`\$(?:\$|\{(\w+)\}|(\w+))`)
)

// hasGroups reports whether re has all groups that a route's template names: $1, ${1}, ${name}, $name.
func hasGroups(re *regexp.Regexp, template string) bool {
	template = templateNumber.ReplaceAllString(template, `$${$1}`) // as ingest.Route reads it
	for _, m := range templateGroup.FindAllStringSubmatch(template, -1) {
		name := m[1] + m[2]
		if name == "" { // $$ is a dollar sign
			continue
		}
		if n, err := strconv.Atoi(name); err == nil && n <= re.NumSubexp() || err != nil && re.SubexpIndex(name) >= 0 {
			continue
		}
		return false
	}
	return true
}

// validate checks the settings of tables. at returns the path of a key; "": it is not to be checked.
func (t *TableConfig) validate(p *problems, at func(key string) string) {
	check := func(key string, f func(path string)) {
		if path := at(key); path != "" {
			f(path)
		}
	}
	for _, s := range []struct {
		key, have string
		allowed   []string
	}{
		{"format", t.Format, []string{"mixed-iceberg"}},
		{"index", t.Index, []string{"row"}},
		{"before", t.Before, []string{"source"}},
		{"optimized_sequence", t.Sequence, []string{"auto", "property", "puffin"}},
	} {
		check(s.key, func(path string) { p.oneOf(path, s.have, s.allowed...) })
	}
	check("properties", func(path string) {
		for _, name := range []string{mixed.PropBaseBuckets, mixed.PropChangeBuckets} {
			if _, _, err := mixed.ParseBuckets(t.Properties, name); err != nil {
				p.wrong(path, "%v", err)
			}
		}
	})
	check("partition", func(path string) {
		if _, err := t.partition(); err != nil {
			p.wrong(path, "%v", err)
		}
	})
	for _, d := range []struct {
		key         string
		have, least time.Duration
	}{
		{"flush.interval", t.Flush.Interval, 100 * time.Millisecond},
		{"retention.time", t.Retention.Time, time.Second},
		{"optimize.minor.interval", t.Optimize.Minor.Interval, 100 * time.Millisecond},
		{"optimize.full.interval", t.Optimize.Full.Interval, 0},
		{"optimize.expire.change_files", t.Optimize.Expire.Grace, 0},
		{"optimize.expire.snapshot_age", t.Optimize.Expire.Age, 0},
	} {
		check(d.key, func(path string) { atLeast(p, path, d.have, d.least) })
	}
	for _, s := range []struct {
		key         string
		have, least Size
	}{
		{"flush.bytes", t.Flush.Bytes, 1 << 10},
		{"retention.bytes", t.Retention.Bytes, 1 << 20},
		{"optimize.target_size", t.Optimize.Target, 1 << 20},
	} {
		check(s.key, func(path string) { atLeast(p, path, s.have, s.least) })
	}
	for _, n := range []struct {
		key         string
		have, least int
	}{
		{"optimize.minor.files", t.Optimize.Minor.Files, 1},
		{"optimize.major.files", t.Optimize.Major.Files, 2},
		{"optimize.expire.snapshots", t.Optimize.Expire.Snapshots, 1},
	} {
		check(n.key, func(path string) { atLeast(p, path, n.have, n.least) })
	}
	check("optimize.major.duplicate_ratio", func(path string) {
		if r := t.Optimize.Major.Ratio; !(r > 0 && r <= 1) {
			p.bad(path, r, "is not in (0, 1]")
		}
	})
}
