package main

import (
	"fmt"
	"os"
	"regexp"
	"time"

	"firn/changelog"
)

// Size is a number of bytes, written 64MiB, 10GiB, 500kB or 4096.
type Size int64

// Config is firn.yaml. The `doc` tags are the configuration reference: `firn config show` and the README print them.
type Config struct {
	Data    string         `yaml:"data" doc:"directory of the log and the index; one process holds its lock"`
	Listen  ListenConfig   `yaml:"listen" doc:"addresses to listen on"`
	Catalog CatalogConfig  `yaml:"catalog" doc:"where Iceberg metadata lives"`
	Sources []SourceConfig `yaml:"sources" doc:"what to read; at least one"`
	Tables  TablesConfig   `yaml:"tables" doc:"settings of tables: defaults, then overrides by name, the first match wins"`
	Parked  ParkedConfig   `yaml:"parked" doc:"records that could not be applied"`
	Limits  LimitsConfig   `yaml:"limits" doc:"bounds; at each of them the sources are slowed, nothing is dropped"`
	Log     LogConfig      `yaml:"log" doc:"firn's own log, on standard error"`

	file     string            // for messages
	secrets  map[string]string // by path: values with ${…} as the file has them
	expanded map[string]string // what each ${…} stands for, to the ${…}
}

// ListenConfig is the two listeners.
type ListenConfig struct {
	Data  string `yaml:"data" doc:"lookups, feeds, tables; HOST:PORT, port 0: a free one"`
	Admin string `yaml:"admin" doc:"metrics, health, profiles; keep it private"`
}

// CatalogConfig is the Iceberg catalog.
type CatalogConfig struct {
	Type       string            `yaml:"type" doc:"sqlite; sql: PostgreSQL, in the tables of Iceberg's JDBC catalog; rest: Iceberg's REST catalog"`
	Name       string            `yaml:"name" doc:"the catalog's name, in the rows of sqlite and sql: their other readers must give the same"`
	URI        string            `yaml:"uri" doc:"path of the SQLite file; postgres://USER:PASSWORD@HOST:PORT/DATABASE; http(s)://HOST:PORT/PATH"`
	Warehouse  string            `yaml:"warehouse" doc:"where table files go, file:DIRECTORY; not used by rest, whose server says where (and must say file:)"`
	Properties map[string]string `yaml:"properties" doc:"table-default.NAME: property of new tables; rest: token, or credential (ID:SECRET) with oauth2-server-uri and scope, header.NAME, prefix, warehouse, tls.ca (PEM file)"`
}

// SourceConfig is one source: exactly one of Kafka and File is there.
type SourceConfig struct {
	Name    string        `yaml:"name" doc:"unique; part of stored positions: a renamed source is a new one"`
	Kafka   *KafkaConfig  `yaml:"kafka" doc:"a Kafka cluster"`
	File    *FileConfig   `yaml:"file" doc:"a recording, one JSON object a record"`
	Topics  []string      `yaml:"topics" doc:"anchored regular expressions, needed for kafka; new matching topics are found while running; default for file: all"`
	Exclude []string      `yaml:"exclude" doc:"anchored regular expressions of topics to leave out"`
	Format  string        `yaml:"format" doc:"of values. json; json_schema: every message must have the schema wrapper; confluent_avro, apicurio_avro: Avro, with schemas from the registry; confluent_jsonschema, apicurio_json: JSON, with JSON Schemas from it (or Connect's, as Apicurio's own converter registers them); confluent_protobuf, apicurio_protobuf: Protobuf; cloudevents_json: CloudEvents in JSON, or with their attributes in headers, whose data the shape tells; cloudevents_avro: the same, where data may be Avro"`
	KeyFmt  string        `yaml:"key_format" doc:"of keys, as format, but no CloudEvents; empty: the same, json beside CloudEvents"`
	Schema  string        `yaml:"schema" doc:"format json: auto (told by each message's wrapper), always, never"`
	Shape   string        `yaml:"shape" doc:"envelope: Debezium's; flattened: rows as ExtractNewRecordState makes them; plain: rows of any producer, each is added; outbox: events of the outbox router, each is added (key: none is a route's default with both); the JSON of other tools: canal: flat messages of Alibaba Canal (and TiCDC); maxwell: Maxwell's daemon; ogg: Oracle GoldenGate's JSON formatter (op); dms: AWS DMS"`
	Hints   string        `yaml:"hints" doc:"JSON file of columns' types, for messages without schemas: {column: its Connect schema, or a list of them}, or {table: {column: …}} by the last part of topics' names"`
	Routes  []RouteConfig `yaml:"routes" doc:"topic to table; the first match wins; none: a.b.c goes to a_b.c"`

	Registry RegistryConfig `yaml:"registry" doc:"the schema registry of the formats confluent_… and apicurio_…"`

	Deletes           string            `yaml:"deletes" doc:"shape flattened: the transformation's delete.tombstone.handling.mode: tombstone, delete-to-tombstone (a null value is the delete); rewrite, rewrite-with-tombstone (metadata say it, null values say nothing); drop (deletes never come)"`
	Metadata          map[string]string `yaml:"metadata" doc:"shape flattened: members that are no columns, and what they are: op, deleted, ts_ms, ts_us, ts_ns, transaction.id, transaction.total_order, transaction.data_collection_order, source.MEMBER; with deletes: rewrite __deleted is deleted by itself. Shape outbox: headers, or members beside payload, and what they hold: id, type, aggregatetype, aggregateid; header: it is put into column headers"`
	Documents         string            `yaml:"documents" doc:"MongoDB: columns: one a field of documents; text: _id and document, which is Extended JSON"`
	Payload           string            `yaml:"payload" doc:"shape outbox: column payload. text: JSON text; expanded: a struct or list, as the JSON has it; binary: the value as it is, in any format"`
	Connector         string            `yaml:"connector" doc:"shapes flattened, plain, ogg and dms: the kind of source, which decides how some types are read: postgresql, mysql, mariadb, sqlserver, oracle, db2"`
	Identity          string            `yaml:"identity" doc:"full: before images are whole (REPLICA IDENTITY FULL); default: they are not trusted; auto: by connector"`
	Placeholder       string            `yaml:"placeholder" doc:"the connector's unavailable.value.placeholder"`
	ReplayFilter      string            `yaml:"replay_filter" doc:"exact, off"`
	ReplayWindow      int               `yaml:"replay_window" doc:"events a partition remembers to recognise repeats"`
	Keyless           string            `yaml:"keyless" doc:"updates and deletes of tables without a key. append: an update adds its new row, a delete is parked; reject_changes: both are parked; full_row: one row equal to the old one goes (topics of one partition; else parked)"`
	KeylessResnapshot string            `yaml:"keyless_resnapshot" doc:"a second snapshot of a table without a key. stop: the partition stops; reload: the table is emptied first (topics of one partition)"`
	OnParked          string            `yaml:"on_parked" doc:"later events of a key that has a parked one. queue: they wait behind it, in order, until it is replayed or skipped; supersede: a whole row or a delete is applied, and what was parked is superseded"`
	MaxRejectedRun    int               `yaml:"max_rejected_run" doc:"a table stops when so many records of a partition are parked one after the other; firn source resume goes on; 0: never"`
	MaxRejectedShare  float64           `yaml:"max_rejected_share" doc:"a table stops when more than this share of 10,000 records of a partition is parked; 0: never"`
	FailFast          bool              `yaml:"fail_fast" doc:"a table stops before a record that would be parked"`
	DLQMaxBytes       Size              `yaml:"dlq_max_bytes" doc:"of a larger parked value only length, SHA-256 and the first 64 KiB are kept; a replay then needs an edit"`
	OnTruncate        string            `yaml:"on_truncate" doc:"apply (topics of one partition; else the event is parked), ignore"`
	Infinity          string            `yaml:"infinity" doc:"null, clamp, reject: infinite dates and timestamps of PostgreSQL"`
	MaxRecordBytes    Size              `yaml:"max_record_bytes" doc:"a larger record is parked"`
	DiscoveryInterval time.Duration     `yaml:"discovery_interval" doc:"how soon new topics are found"`
}

// RegistryConfig is a schema registry.
type RegistryConfig struct {
	URL      string         `yaml:"url" doc:"confluent_…: http(s)://HOST:8081, or Apicurio's …/apis/ccompat/v7; apicurio_…: http(s)://HOST:8080/apis/registry/v3 (or v2)"`
	User     string         `yaml:"user" doc:"user name; empty: no authentication"`
	Password string         `yaml:"password" doc:"password; better ${file:…} or ${ENV}"`
	TLS      TLSConfig      `yaml:"tls" doc:"whom to trust at https, and the client's certificate"`
	Apicurio ApicurioConfig `yaml:"apicurio" doc:"of apicurio_…: the ids in front of payloads (headers say it themselves)"`
}

// ApicurioConfig is how Apicurio's serializers write ids.
type ApicurioConfig struct {
	Width string `yaml:"id_width" doc:"bytes of an id: 4, 8 (older versions), auto"`
	Kind  string `yaml:"id_kind" doc:"contentId, globalId (older versions)"`
	Ref   string `yaml:"protobuf_ref" doc:"what names the message type before a body in Protobuf, where no header does: delimited (a message with its name), indexes (Confluent's list), none (it is the schema's first one)"`
}

// KafkaConfig is a Kafka cluster.
type KafkaConfig struct {
	Brokers []string      `yaml:"brokers" doc:"host:port of the first brokers to ask"`
	Group   string        `yaml:"group" doc:"consumer group; default firn-NAME, of the source"`
	Start   string        `yaml:"start" doc:"earliest, latest: where a partition without a stored position starts"`
	Session time.Duration `yaml:"session_timeout" doc:"how long the group waits for a silent member; a restart with the same data directory need not wait"`
	TLS     TLSConfig     `yaml:"tls" doc:"encryption"`
	SASL    SASLConfig    `yaml:"sasl" doc:"authentication"`
}

func defaultKafka() KafkaConfig { return KafkaConfig{Start: "earliest", Session: 30 * time.Second} }

// TLSConfig is how to trust a broker and be trusted by it.
type TLSConfig struct {
	Enabled bool   `yaml:"enabled" doc:"speak TLS; implied by the files below"`
	CA      string `yaml:"ca" doc:"PEM file of the authorities to trust; empty: the system's"`
	Cert    string `yaml:"cert" doc:"PEM file of the client's certificate"`
	Key     string `yaml:"key" doc:"PEM file of the client's key"`
}

// SASLConfig is a user of a broker.
type SASLConfig struct {
	Mechanism string `yaml:"mechanism" doc:"plain, scram-sha-256, scram-sha-512; empty: none"`
	User      string `yaml:"user" doc:"user name"`
	Password  string `yaml:"password" doc:"password; better ${file:…} or ${ENV}"`
}

// FileConfig is a recorded topic file.
type FileConfig struct {
	Path   string `yaml:"path" doc:"the file; .gz is decompressed and cannot be followed"`
	Follow bool   `yaml:"follow" doc:"wait for more lines at its end"`
}

// RouteConfig sends topics to a table.
type RouteConfig struct {
	Topic     string   `yaml:"topic" doc:"anchored regular expression"`
	Table     string   `yaml:"table" doc:"namespace.table; $1 is the first group of topic"`
	Format    string   `yaml:"format" doc:"as the source's, for this route; empty: the source's"`
	KeyFmt    string   `yaml:"key_format" doc:"as the source's, for this route; empty: the route's format if it has one, else the source's"`
	Hints     string   `yaml:"hints" doc:"as the source's, for this route; empty: the source's"`
	Keyless   string   `yaml:"keyless" doc:"as the source's, for this route; empty: the source's"`
	OnParked  string   `yaml:"on_parked" doc:"as the source's, for this route; empty: the source's"`
	Key       keyRoute `yaml:"key" doc:"message: the message key's columns, no key where there is none (shapes canal, maxwell, ogg: those that the message names; dms: none); none: no key; or a list of columns. Default: message; none with shapes plain and outbox"`
	AmoroKeys bool     `yaml:"amoro_keys" doc:"true: uuid key columns of new tables are strings (canonical text), binary and fixed ones too (lower-case hex), since Amoro loses deletes of such keys; false: they keep their types, and Amoro must not read or optimize the tables"`

	Renames map[string]string `yaml:"renames" doc:"old name: new name, of columns that the source has renamed; without it a rename is a new column beside the old one"`

	SourceTable string `yaml:"source_table" doc:"the only table that records may be of, as table, schema.table or database.table; others are parked (source_mismatch)"`

	Drops []string `yaml:"drops" doc:"columns that the source no longer has; without it they stay, null in later rows"`

	Columns []ColumnRuleConfig `yaml:"columns" doc:"column rules, applied in order to every event before it goes to the table (README, Column rules); key, renames and drops name columns as the rules leave them"`
}

// ColumnRuleConfig is a rule of a route for columns.
type ColumnRuleConfig struct {
	Rule    string   `yaml:"rule" doc:"drop, rename, constant, metadata, hash, redact, truncate, cast, compute"`
	Columns []string `yaml:"columns" doc:"names of the columns that the rule takes, as the rules before it have left them; for metadata, those to add: _lake_source_ts, _lake_topic, _lake_partition, _lake_offset, _lake_position, _lake_op, _lake_tx_id, _lake_tx_order, _lake_snapshot"`
	Match   string   `yaml:"match" doc:"in place of columns: takes those whose names match the anchored regular expression"`
	To      string   `yaml:"to" doc:"rename: the new name; $1 is the first group of match. constant, compute: the name of the column to add"`
	Value   string   `yaml:"value" doc:"constant: the value, as rows show it. redact: what stands for every value; empty: REDACTED in strings, null in other columns"`
	Salt    string   `yaml:"salt" doc:"hash: the secret that HMAC-SHA-256 is keyed with, at least 16 bytes: ${file:…} or ${ENV}; another salt makes other values"`
	Length  int      `yaml:"length" doc:"truncate: the characters to keep"`
	Expr    string   `yaml:"expr" doc:"compute: an expression of CEL over the columns (README, Column rules)"`
	Type    string   `yaml:"type" doc:"constant, cast, compute: boolean, int, long, float, double, decimal(P,S), date, time, timestamp, timestamptz, string, uuid, binary; empty: string for constant"`
}

func defaultRoute() RouteConfig { return RouteConfig{AmoroKeys: true} }

// keyRoute is `message`, `none` or a list of column names.
type keyRoute struct {
	Mode    string
	Columns []string
}

// TablesConfig is the settings of all tables.
type TablesConfig struct {
	Defaults  TableConfig     `yaml:"defaults" doc:"for every table"`
	Overrides []TableOverride `yaml:"overrides" doc:"for tables whose name matches; the first match wins"`
}

// TableOverride is what differs for some tables. Its other keys are those of tables.defaults.
type TableOverride struct {
	Match string `yaml:"match" doc:"anchored regular expression of namespace.table"`
	TableConfig
}

// TableConfig is the settings of a table.
type TableConfig struct {
	Format     string            `yaml:"format" doc:"mixed-iceberg"`
	Flush      FlushConfig       `yaml:"flush" doc:"log to change files: whichever of the two comes first"`
	Retention  RetentionConfig   `yaml:"retention" doc:"how much of the log is kept; what is not flushed always is"`
	Index      string            `yaml:"index" doc:"row: the whole current row, lookups are local"`
	Before     string            `yaml:"before" doc:"source: before images are what the source gave"`
	Partition  []string          `yaml:"partition" doc:"partitions of the Iceberg tables, at their creation: column, bucket(n, column), truncate(n, column), month|day|hour(column); without a key year(column), too"`
	Sequence   string            `yaml:"optimized_sequence" doc:"where base commits say what is merged. auto: a table property, Puffin statistics where Amoro has optimized the table; puffin: those from now on, with no way back, and PyIceberg cannot load them; property: never (firn.optimized-sequence)"`
	Optimize   OptimizeConfig    `yaml:"optimize" doc:"change files to base files, small base files to large ones"`
	Properties map[string]string `yaml:"properties" doc:"properties of the Iceberg tables; Amoro's self-optimizing.* and hash-bucket ones are obeyed (README, Tree nodes)"`
}

// FlushConfig closes a flush.
type FlushConfig struct {
	Interval time.Duration `yaml:"interval" doc:"at the latest this long after its first change"`
	Bytes    Size          `yaml:"bytes" doc:"at this many bytes of log"`
}

// RetentionConfig bounds the log.
type RetentionConfig struct {
	Time  time.Duration `yaml:"time" doc:"older changes go"`
	Bytes Size          `yaml:"bytes" doc:"the oldest changes of a log larger than this go"`
}

// OptimizeConfig is the optimizer's rounds.
type OptimizeConfig struct {
	Enabled bool         `yaml:"enabled" doc:"false: another process optimizes (firn optimize, Amoro)"`
	Minor   MinorConfig  `yaml:"minor" doc:"change files into base files and position deletes"`
	Major   MajorConfig  `yaml:"major" doc:"small and much deleted base files into large ones"`
	Full    FullConfig   `yaml:"full" doc:"all base files rewritten"`
	Expire  ExpireConfig `yaml:"expire" doc:"merged change files and old snapshots"`
	Target  Size         `yaml:"target_size" doc:"size of a large base file (self-optimizing.target-size)"`
}

// MinorConfig is when minor rounds run.
type MinorConfig struct {
	Interval time.Duration `yaml:"interval" doc:"time between rounds (self-optimizing.minor.trigger.interval)"`
	Files    int           `yaml:"files" doc:"change files that start a round at once (self-optimizing.minor.trigger.file-count)"`
}

// MajorConfig is when major rounds run.
type MajorConfig struct {
	Files int     `yaml:"files" doc:"small base files of about one size that are merged into one"`
	Ratio float64 `yaml:"duplicate_ratio" doc:"deleted part of a large file's rows that has it rewritten (self-optimizing.major.trigger.duplicate-ratio)"`
}

// FullConfig is when full rounds run.
type FullConfig struct {
	Interval time.Duration `yaml:"interval" doc:"time between rounds; 0s: never (self-optimizing.full.trigger.interval)"`
}

// ExpireConfig is what is kept.
type ExpireConfig struct {
	Grace     time.Duration `yaml:"change_files" doc:"change files stay at least this long after their commit (change.data.ttl.minutes)"`
	Snapshots int           `yaml:"snapshots" doc:"snapshots kept of each store"`
	Age       time.Duration `yaml:"snapshot_age" doc:"younger snapshots are kept, whatever their number"`
}

// ParkedConfig is what becomes of parked records.
type ParkedConfig struct {
	Table string `yaml:"table" doc:"last part of the name of the Iceberg table of them that each namespace gets; another for each firn that writes to a namespace; empty: none, and they are lost with the data directory"`
}

// LimitsConfig bounds the process.
type LimitsConfig struct {
	Memory      Size `yaml:"memory" doc:"of the process; a soft limit of the Go heap and the caches' budget"`
	Disk        Size `yaml:"disk" doc:"of the data directory; at the limit the sources pause and reads go on"`
	Parked      Size `yaml:"parked" doc:"of parked records; at the limit their sources pause"`
	Connections int  `yaml:"connections" doc:"of the data listener"`
}

// LogConfig is firn's own log.
type LogConfig struct {
	Level  string `yaml:"level" doc:"debug, info, warn, error"`
	Format string `yaml:"format" doc:"text, json"`
}

// defaultConfig returns every default. Sources have none.
func defaultConfig() *Config {
	return &Config{
		Data:    "./firn-data",
		Listen:  ListenConfig{Data: "127.0.0.1:7411", Admin: "127.0.0.1:7412"},
		Catalog: CatalogConfig{Type: "sqlite", Name: "firn", URI: "./firn-data/catalog.db", Warehouse: "file:./firn-data/lake", Properties: map[string]string{}},
		Tables: TablesConfig{Defaults: TableConfig{
			Format:    "mixed-iceberg",
			Flush:     FlushConfig{Interval: 10 * time.Second, Bytes: 64 << 20},
			Retention: RetentionConfig{Time: 24 * time.Hour, Bytes: 10 << 30},
			Index:     "row",
			Before:    "source",
			Sequence:  "auto",
			Optimize: OptimizeConfig{
				Enabled: true,
				Minor:   MinorConfig{Interval: 30 * time.Second, Files: 12},
				Major:   MajorConfig{Files: 8, Ratio: 0.1},
				Expire:  ExpireConfig{Grace: 5 * time.Minute, Snapshots: 50, Age: time.Minute},
				Target:  128 << 20,
			},
			Properties: map[string]string{},
		}},
		Parked:  ParkedConfig{Table: "parked"},
		Limits:  LimitsConfig{Memory: 1 << 30, Disk: 50 << 30, Parked: 1 << 30, Connections: 10000},
		Log:     LogConfig{Level: "info", Format: "text"},
		secrets: map[string]string{}, expanded: map[string]string{},
	}
}

// defaultSource returns a source's defaults.
func defaultSource() SourceConfig {
	return SourceConfig{
		Format: "json", Registry: RegistryConfig{Apicurio: ApicurioConfig{Width: "auto", Kind: "contentId", Ref: "delimited"}}, Schema: "auto", Shape: "envelope", Deletes: "tombstone", Metadata: map[string]string{}, Payload: "text", Documents: "columns", Identity: "auto",
		Placeholder: "__debezium_unavailable_value", ReplayFilter: "exact", ReplayWindow: 100_000, Keyless: "append", KeylessResnapshot: "stop", OnParked: "queue", MaxRejectedRun: 100, MaxRejectedShare: 0.05, DLQMaxBytes: 16 << 20, OnTruncate: "apply", Infinity: "null",
		MaxRecordBytes: 16 << 20, DiscoveryInterval: 10 * time.Second,
	}
}

// loadConfig reads, decodes and validates a configuration file. The error joins everything that is wrong with it; a file
// that cannot be read is an *exitError of exitOpen.
func loadConfig(file string) (*Config, error) {
	text, err := os.ReadFile(file) //nolint:gosec // the operator names the file
	if err != nil {
		return nil, &exitError{exitOpen, fmt.Errorf("configuration: %w", err)}
	}
	return parseConfig(file, text)
}

func parseConfig(file string, text []byte) (*Config, error) {
	cfg := defaultConfig()
	cfg.file = file
	p := &problems{file: file, lines: map[string]int{}, failed: map[string]bool{}, secrets: cfg.secrets}
	d := &decoder{problems: p, expanded: cfg.expanded}
	d.document(text, cfg)
	cfg.fill()
	cfg.validate(p)
	if err := p.err(); err != nil {
		return nil, err
	}
	return cfg, nil
}

// fill sets what follows from other settings where the file does not say it.
func (c *Config) fill() {
	for i := range c.Sources {
		s := &c.Sources[i]
		if s.Format == "json_schema" && s.Schema == "auto" {
			s.Schema = "always"
		}
		if s.File != nil && s.Topics == nil {
			s.Topics = []string{".*"}
		}
		if k := s.Kafka; k != nil {
			if k.Group == "" {
				k.Group = "firn-" + s.Name
			}
			k.TLS.Enabled = k.TLS.Enabled || k.TLS.CA != "" || k.TLS.Cert != ""
		}
		for j := range s.Routes {
			if r := &s.Routes[j]; r.Key.Mode == "" {
				r.Key.Mode = defaultKey(*s)
			}
		}
	}
}

// defaultKey is a route's key where it does not say it.
func defaultKey(s SourceConfig) string {
	if s.Shape == "plain" || s.Shape == "outbox" {
		return "none"
	}
	return "message"
}

// kind returns what a source of that name reads: kafka, file; unknown if the configuration has none (any more).
func (c *Config) kind(source string) string {
	for _, s := range c.Sources {
		switch {
		case s.Name != source:
		case s.Kafka != nil:
			return "kafka"
		case s.File != nil:
			return "file"
		}
	}
	return "unknown"
}

// source returns the source of that name; without one, a source with the defaults.
func (c *Config) source(name string) SourceConfig {
	for _, s := range c.Sources {
		if s.Name == name {
			return s
		}
	}
	return defaultSource()
}

// partition returns the partition spec, not bound to any columns yet.
func (t TableConfig) partition() (changelog.PartitionSpec, error) {
	return changelog.ParsePartition(t.Partition)
}

// Table returns the settings of one table: the first matching override over the defaults.
func (c *Config) Table(name string) TableConfig {
	for _, o := range c.Tables.Overrides {
		if re, err := anchored(o.Match); err == nil && re.MatchString(name) {
			return o.TableConfig
		}
	}
	return c.Tables.Defaults
}

func anchored(expr string) (*regexp.Regexp, error) {
	re, err := regexp.Compile("^(?:" + expr + ")$")
	if err != nil {
		return nil, fmt.Errorf("regular expression %q: %w", expr, err)
	}
	return re, nil
}
