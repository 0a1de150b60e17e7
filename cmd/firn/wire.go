package main

import (
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"iter"
	"log/slog"
	"maps"
	"os"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/sasl"
	"github.com/twmb/franz-go/pkg/sasl/plain"
	"github.com/twmb/franz-go/pkg/sasl/scram"

	"firn/changelog"
	"firn/changelog/mixed"
	"firn/changelog/table"
	"firn/ingest"
	"firn/ingest/decode"
	"firn/ingest/file"
	"firn/ingest/kafka"
	"firn/ingest/registry"
	"firn/logstore"
	"firn/state"
)

// This file turns the configuration into parts, and fits parts that do not know each other together.

// newInput makes a source and its routes from their settings.
func newInput(s SourceConfig, instance string, log *slog.Logger) (ingest.Input, error) {
	src, err := newSource(s, instance, log)
	if err != nil {
		return ingest.Input{}, err
	}
	for _, w := range shapeWarnings(s) {
		log.Warn("look at the source's settings", "source", s.Name, "warning", w)
	}
	in := ingest.Input{Source: src, ReplayWindow: s.ReplayWindow}
	hints, err := readHints(s.Hints)
	if err != nil {
		return ingest.Input{}, fmt.Errorf("source %s: %w", s.Name, err)
	}
	if in.Schemas, err = s.Registry.client(); err != nil {
		return ingest.Input{}, fmt.Errorf("source %s: registry: %w", s.Name, err)
	}
	for _, r := range s.Routes {
		route := newRoute(s)
		route.Topic, route.Table = r.Topic, r.Table
		switch r.Key.Mode {
		case "columns":
			route.Key, route.Columns = ingest.KeyColumns, r.Key.Columns
		case "none":
			route.Key = ingest.KeyNone
		default:
			route.Key = ingest.KeyMessage
		}
		route.Plan = decode.PlanOptions{Renames: r.Renames, Drops: r.Drops, NativeKeys: !r.AmoroKeys}
		route.Rules = r.columnRules()
		route.Decode.Format, route.Decode.KeyFormat = s.formats(r)
		route.Decode.SourceTable = r.SourceTable
		if route.Hints = hints; r.Hints != "" {
			if route.Hints, err = readHints(r.Hints); err != nil {
				return ingest.Input{}, fmt.Errorf("source %s: route %s: %w", s.Name, r.Topic, err)
			}
		}
		if r.Keyless != "" {
			route.Keyless = keylessRule(r.Keyless)
		}
		if r.OnParked != "" {
			route.OnParked = parkedRule(r.OnParked)
		}
		in.Routes = append(in.Routes, route)
	}
	rest := newRoute(s) // what no route names takes the default one, with the source's settings
	rest.Topic, rest.Hints = ".*", hints
	in.Routes = append(in.Routes, rest)
	return in, nil
}

// shapeWarnings says what a source cannot tell by its settings alone (spec/debezium.md 1.13).
func shapeWarnings(s SourceConfig) []string {
	out := []string{}
	if why := foreignLimits[s.Shape]; why != "" {
		out = append(out, why)
	}
	if s.Shape != "flattened" {
		return out
	}
	if s.Deletes == "drop" {
		out = append(out, "flattened with deletes: drop: rows that are deleted at the source stay; set the transformation's delete.tombstone.handling.mode to rewrite")
	}
	position := map[string]bool{"source.lsn": true, "source.pos": true, "source.commit_lsn": true, "source.scn": true, "source.ord": true}
	if s.ReplayFilter != "off" && !slices.ContainsFunc(slices.Collect(maps.Values(s.Metadata)), func(m string) bool { return position[m] }) {
		out = append(out, "flattened without the source's position in metadata: events that the connector sends again are not recognised; rows with a key come right all the same")
	}
	return append(out, "flattened topics tell of no truncate, and of no key change but as a delete and a create")
}

// foreignLimits are what the messages of other tools do not tell.
var foreignLimits = map[string]string{
	"maxwell": "repeats are recognised with output_commit_info and output_xoffset only; keys come from output_primary_key_columns or the Kafka key. " +
		"Whole rows need binlog_row_image=FULL, and a topic a table (kafka_topic=%{database}_%{table})",
	"ogg": "repeats are recognised by pos, keys come from primary_keys: both are meta columns of the formatter. A column that is not there was not " +
		"sent, so that omitNullValues has to be false",
	"dms": "messages name no key: tables without a route that names its key columns have none. Repeats are recognised with IncludeTransactionDetails, " +
		"and a row that takes another key with BeforeImageSettings (FieldName before-image) only",
	"canal": "canal's messages have no position: what it sends again is not recognised; rows with a key come right all the same. " +
		"Whole rows need binlog_row_image=FULL, and a topic a table (canal.mq.dynamicTopic)",
}

func newSource(s SourceConfig, instance string, log *slog.Logger) (ingest.Source, error) {
	if s.File != nil {
		return file.Open(file.Options{Name: s.Name, Path: s.File.Path, Follow: s.File.Follow, Topics: s.Topics, Exclude: s.Exclude, Logger: log})
	}
	o := kafka.Options{
		Name: s.Name, Brokers: s.Kafka.Brokers, Group: s.Kafka.Group, Instance: instance, Topics: s.Topics, Exclude: s.Exclude,
		Start: kafka.Start(s.Kafka.Start), Discover: s.DiscoveryInterval, SessionTimeout: s.Kafka.Session, Logger: log,
	}
	var err error
	if o.TLS, err = s.Kafka.TLS.config(); err != nil {
		return nil, fmt.Errorf("source %s: %w", s.Name, err)
	}
	if o.SASL, err = s.Kafka.SASL.mechanism(); err != nil {
		return nil, fmt.Errorf("source %s: %w", s.Name, err)
	}
	return kafka.Open(o)
}

func (c TLSConfig) config() (*tls.Config, error) {
	if !c.Enabled && c.CA == "" && c.Cert == "" {
		return nil, nil //nolint:nilnil // no TLS
	}
	cfg := &tls.Config{MinVersion: tls.VersionTLS12}
	if c.CA != "" {
		pem, err := os.ReadFile(c.CA)
		if err != nil {
			return nil, fmt.Errorf("tls.ca: %w", err)
		}
		cfg.RootCAs = x509.NewCertPool()
		if !cfg.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("tls.ca: %s holds no certificate in PEM", c.CA)
		}
	}
	if c.Cert != "" {
		pair, err := tls.LoadX509KeyPair(c.Cert, c.Key)
		if err != nil {
			return nil, fmt.Errorf("tls.cert: %w", err)
		}
		cfg.Certificates = []tls.Certificate{pair}
	}
	return cfg, nil
}

func (c SASLConfig) mechanism() (sasl.Mechanism, error) {
	switch c.Mechanism {
	case "":
		return nil, nil //nolint:nilnil // no authentication
	case "plain":
		return plain.Auth{User: c.User, Pass: c.Password}.AsMechanism(), nil
	case "scram-sha-256":
		return scram.Auth{User: c.User, Pass: c.Password}.AsSha256Mechanism(), nil
	case "scram-sha-512":
		return scram.Auth{User: c.User, Pass: c.Password}.AsSha512Mechanism(), nil
	}
	return nil, fmt.Errorf("sasl.mechanism %q is not known", c.Mechanism)
}

// newRoute returns the reading rules of a source, without a topic.
func newRoute(s SourceConfig) ingest.Route {
	r := ingest.Route{KeepRepeats: s.ReplayFilter == "off"}
	r.MaxRejectedRun, r.MaxRejectedShare, r.FailFast, r.MaxParkedBytes = s.MaxRejectedRun, s.MaxRejectedShare, s.FailFast, int64(s.DLQMaxBytes)
	r.Keyless, r.OnParked = keylessRule(s.Keyless), parkedRule(s.OnParked)
	if s.KeylessResnapshot == "reload" {
		r.Resnapshot = ingest.ResnapshotReload
	}
	if s.OnTruncate == "ignore" {
		r.Truncate = ingest.TruncateIgnore
	}
	r.Decode = decode.Options{Placeholder: s.Placeholder, MaxMessageBytes: int64(s.MaxRecordBytes)}
	r.Decode.Format, r.Decode.KeyFormat = s.formats(RouteConfig{})
	r.Decode.GlobalIDs = s.Registry.Apicurio.Kind == "globalId"
	switch s.Registry.Apicurio.Width {
	case "4":
		r.Decode.IDWidth = decode.IDWidth4
	case "8":
		r.Decode.IDWidth = decode.IDWidth8
	}
	switch s.Registry.Apicurio.Ref {
	case "indexes":
		r.Decode.ProtobufRef = decode.ProtobufRefIndexes
	case "none":
		r.Decode.ProtobufRef = decode.ProtobufRefNone
	}
	switch s.Shape {
	case "flattened":
		r.Decode.Form, r.Decode.Metadata = decode.FormFlattened, s.Metadata
	case "plain":
		r.Decode.Form = decode.FormPlain
		r.Key = ingest.KeyNone
	case "canal":
		r.Decode.Form = decode.FormCanal
	case "maxwell":
		r.Decode.Form = decode.FormMaxwell
	case "ogg":
		r.Decode.Form = decode.FormOGG
	case "dms":
		r.Decode.Form = decode.FormDMS
	case "outbox":
		r.Decode.Form, r.Decode.Metadata = decode.FormOutbox, s.Metadata
		r.Key = ingest.KeyNone
	}
	switch s.Payload {
	case "expanded":
		r.Decode.Payload = decode.PayloadExpanded
	case "binary":
		r.Decode.Payload = decode.PayloadBinary
	}
	r.Decode.Connector = s.Connector
	if s.Documents == "text" {
		r.Decode.Documents = decode.DocumentText
	}
	switch s.Deletes {
	case "rewrite", "rewrite-with-tombstone":
		r.Decode.Deletes = decode.DeletesRewrite
	case "drop":
		r.Decode.Deletes = decode.DeletesDrop
	}
	switch s.Identity {
	case "full":
		r.Decode.Identity = decode.IdentityFull
	case "default":
		r.Decode.Identity = decode.IdentityDefault
	}
	switch s.Infinity {
	case "clamp":
		r.Decode.Infinity = decode.InfinityClamp
	case "reject":
		r.Decode.Infinity = decode.InfinityReject
	}
	return r
}

// formats returns how a route's values and keys are written.
func (s SourceConfig) formats(r RouteConfig) (value, key decode.Format) {
	format, keys := s.formatNames(r)
	return s.format(format), s.format(keys)
}

func (s SourceConfig) formatNames(r RouteConfig) (value, key string) {
	value = cmp.Or(r.Format, s.Format)
	if key = cmp.Or(r.KeyFmt, r.Format, s.KeyFmt, value); strings.HasPrefix(key, "cloudevents_") { // the converter writes keys as the JSON converter does
		key = "json"
	}
	return value, key
}

// framedFormats are the formats that have their schemas in a registry.
var framedFormats = map[string]decode.Format{
	"confluent_avro": decode.FormatConfluentAvro, "apicurio_avro": decode.FormatApicurioAvro,
	"confluent_jsonschema": decode.FormatConfluentJSON, "apicurio_json": decode.FormatApicurioJSON,
	"confluent_protobuf": decode.FormatConfluentProtobuf, "apicurio_protobuf": decode.FormatApicurioProtobuf,
}

func (s SourceConfig) format(name string) decode.Format {
	if f, ok := framedFormats[name]; ok {
		return f
	}
	switch {
	case name == "cloudevents_json":
		return decode.FormatCloudEvents
	case name == "cloudevents_avro":
		return decode.FormatCloudEventsAvro
	case name == "json_schema", s.Schema == "always":
		return decode.FormatSchema
	case s.Schema == "never":
		return decode.FormatPlain
	}
	return decode.FormatAuto
}

// client returns the registry's client; nil: there is no registry.
func (r RegistryConfig) client() (ingest.Schemas, error) {
	if r.URL == "" {
		return nil, nil //nolint:nilnil // as said
	}
	trust, err := r.TLS.config()
	if err != nil {
		return nil, err
	}
	return registry.New(registry.Options{URL: r.URL, User: r.User, Password: r.Password, TLS: trust})
}

func keylessRule(name string) ingest.KeylessRule {
	switch name {
	case "reject_changes":
		return ingest.KeylessReject
	case "full_row":
		return ingest.KeylessFullRow
	default:
		return ingest.KeylessAppend
	}
}

func parkedRule(name string) ingest.ParkedRule {
	if name == "queue" {
		return ingest.ParkedQueue
	}
	return ingest.ParkedSupersede
}

// ingestLog is the LogStore as the pipeline sees it.
type ingestLog struct {
	*logstore.Store

	stopped func(changelog.TableID) error // why a table is not written any more; nil if it is
}

func (l ingestLog) Submit(ctx context.Context, a changelog.Append) (ingest.Ticket, error) {
	for _, t := range a.Tables {
		if err := l.stopped(t.Table); err != nil {
			return nil, fmt.Errorf("%w: %w", ingest.ErrTableStopped, err)
		}
	}
	t, err := l.Store.Submit(ctx, a)
	if errors.Is(err, logstore.ErrFull) || errors.Is(err, logstore.ErrParkedFull) {
		return nil, fmt.Errorf("%w: %w", ingest.ErrFull, err)
	}
	if err != nil {
		return nil, err
	}
	return t, nil
}

func (l ingestLog) Row(ctx context.Context, table changelog.TableID, key changelog.Key) (changelog.Row, bool, error) {
	v, err := l.RowNow(ctx, table, key)
	return v.Row, v.Found, err
}

func (l ingestLog) MovedRow(_ context.Context, table changelog.TableID, key changelog.Key, native string) (changelog.Row, bool, error) {
	return l.Store.MovedRow(table, key, native)
}

func (l ingestLog) Keys(ctx context.Context, table changelog.TableID) iter.Seq2[changelog.Key, error] {
	return func(yield func(changelog.Key, error) bool) {
		snap, err := l.Snapshot(ctx, table)
		if err != nil {
			yield(nil, err)
			return
		}
		defer func() { _ = snap.Close() }() // a view: nothing is lost
		for e, err := range snap.Rows(nil, nil) {
			if !yield(e.Key, err) || err != nil {
				return
			}
		}
	}
}

// ingestTables is the registry as the pipeline sees it.
type ingestTables struct {
	registry *state.Registry
	settings func(table string) TableConfig
	parked   func(table string) string // the name of the table of its parked records
	lake     interface {               // of the tables
		Load(ctx context.Context, name string) (*table.Table, error)
	}
	log *slog.Logger
}

func (t ingestTables) Table(name string) (*ingest.Table, bool) {
	found, ok := t.registry.Table(name)
	if !ok || logstore.IsParkedTable(found) { // which no topic feeds: Create says so
		return nil, false
	}
	return ingestTable(found), true
}

func (t ingestTables) Create(ctx context.Context, name string, schema *changelog.Schema, topic ingest.Topic) (*ingest.Table, error) {
	if found, ok := t.registry.Table(name); t.parked(name) == name || ok && logstore.IsParkedTable(found) {
		return nil, fmt.Errorf("%w: %s is firn's own table of parked records: route topic %s to another name, or change parked.table", ingest.ErrTableUnfit, name, topic.Topic)
	}
	settings := t.settings(name)
	spec, err := settings.partition()
	if err == nil {
		spec, err = table.CheckPartition(spec, schema)
	}
	if err != nil {
		return nil, fmt.Errorf("%w: tables.….partition of %s: %w", ingest.ErrTableUnfit, name, err)
	}
	props, err := keyProperties(schema, settings.Properties)
	if err != nil {
		return nil, fmt.Errorf("%w: %s: %w", ingest.ErrTableUnfit, name, err)
	}
	made, err := t.registry.CreatePartitioned(ctx, name, schema, spec, state.TopicRef(topic), props)
	if errors.Is(err, state.ErrExists) {
		return nil, fmt.Errorf("%w: %w", ingest.ErrTableExists, err)
	}
	if err != nil {
		return nil, err
	}
	return ingestTable(made), nil
}

// keyProperties returns the properties of a new table with what its key demands: a key of a type that Amoro does not take is
// there because a route said so. Error: the format cannot carry the key.
func keyProperties(schema *changelog.Schema, props map[string]string) (map[string]string, error) {
	if column, _ := mixed.BadKey(schema, props); column == "" {
		return props, nil
	}
	props = maps.Clone(props)
	if props == nil {
		props = map[string]string{}
	}
	props[mixed.PropAmoroKeys] = "false"
	if column, why := mixed.BadKey(schema, props); column != "" {
		return nil, fmt.Errorf("key column %q: %s", column, why)
	}
	return props, nil
}

func (t ingestTables) AddSchema(ctx context.Context, id changelog.TableID, s *changelog.Schema) (*ingest.Table, error) {
	if now, ok := t.registry.ByID(id); ok && mixed.Buckets(append(slices.Clone(now.Schemas), s), 2) < mixed.Buckets(now.Schemas, 2) {
		release, err := t.registry.HoldPlacing(ctx, id) // no flush or merge adds such a file before the wider type is known
		if err != nil {
			return nil, err
		}
		defer release()
		if err := t.keyMayWiden(ctx, now.Name); err != nil {
			return nil, err
		}
	}
	changed, err := t.registry.AddSchema(ctx, id, s)
	if errors.Is(err, state.ErrExists) {
		return nil, fmt.Errorf("%w: %w", ingest.ErrTableChanged, err)
	}
	if err != nil {
		return nil, err
	}
	return ingestTable(changed), nil
}

// keyMayWiden refuses a key column's wider type, which hashes otherwise, where files are placed by the hash: other writers of the
// table would look for the rows in other tree nodes (spec/mixed-format.md 4). It waits for a lake that does not answer.
// Error: *decode.Rejected, ctx's.
func (t ingestTables) keyMayWiden(ctx context.Context, name string) error {
	for delay := 100 * time.Millisecond; ; delay = min(2*delay, 10*time.Second) {
		lake, err := t.lake.Load(ctx, name)
		if errors.Is(err, table.ErrNotFound) {
			return nil
		}
		var file string
		if err == nil {
			file, err = lake.OffRoot(ctx)
		}
		switch {
		case err == nil && file == "":
			return nil
		case err == nil:
			return &decode.Rejected{Reason: decode.ReasonKeyColumnsChanged, Detail: fmt.Sprintf(
				"a key column would get a wider type, which hashes otherwise, and %s of %s is of one of several tree nodes: read the topic into a "+
					"new table, or have the files rewritten to the root (%s and %s are 1) and replay", path.Base(file), name, mixed.PropBaseBuckets, mixed.PropChangeBuckets)}
		}
		t.log.Warn("wider key column waits for the lake", "table", name, "err", err)
		select {
		case <-time.After(delay):
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

func (t ingestTables) AddTopic(ctx context.Context, id changelog.TableID, topic ingest.Topic) (*ingest.Table, error) {
	changed, err := t.registry.AddTopic(ctx, id, state.TopicRef(topic))
	if err != nil {
		return nil, err
	}
	return ingestTable(changed), nil
}

func ingestTable(t *state.Table) *ingest.Table {
	out := &ingest.Table{ID: t.ID, Name: t.Name, Schemas: t.Schemas, Partition: t.Partition}
	for _, ref := range t.Topics {
		out.Topics = append(out.Topics, ingest.Topic(ref))
	}
	return out
}
