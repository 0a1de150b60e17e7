package main

import (
	"fmt"
	"log/slog"
	"reflect"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"
)

// reloadable are the settings that take effect without a restart.
var reloadable = []string{"log.level"}

// reload reads the configuration file again, applies what can change while running and returns the paths of all
// settings that differ, in two lists: applied, and those that a restart would apply.
func reload(running *Config, level *slog.LevelVar) (applied, left []string, err error) {
	applied, left = []string{}, []string{}
	next, err := loadConfig(running.file)
	if err != nil {
		return nil, nil, err
	}
	for _, path := range differences(running, next) {
		if slices.Contains(reloadable, path) {
			applied = append(applied, path)
		} else {
			left = append(left, path)
		}
	}
	if slices.Contains(applied, "log.level") {
		running.Log.Level = next.Log.Level
		level.Set(next.Log.level())
	}
	return applied, left, nil
}

// level returns slog's level of a validated configuration.
func (l LogConfig) level() slog.Level {
	var level slog.Level
	if err := level.UnmarshalText([]byte(l.Level)); err != nil {
		panic(fmt.Sprintf("firn: log level %q passed validation: %v", l.Level, err))
	}
	return level
}

// differences returns the paths at which two configurations differ, sorted.
func differences(a, b *Config) []string {
	left, right := map[string]string{}, map[string]string{} // unmasked: a changed secret is a difference
	leaves(configNode(reflect.ValueOf(*a), "", nil), "", left)
	leaves(configNode(reflect.ValueOf(*b), "", nil), "", right)
	var out []string
	for path, text := range left {
		if other, ok := right[path]; !ok || other != text {
			out = append(out, path)
		}
	}
	for path := range right {
		if _, ok := left[path]; !ok {
			out = append(out, path)
		}
	}
	slices.Sort(out)
	return out
}

func leaves(n *yaml.Node, path string, into map[string]string) {
	switch n.Kind {
	case yaml.MappingNode:
		for i := 0; i+1 < len(n.Content); i += 2 {
			leaves(n.Content[i+1], join(path, n.Content[i].Value), into)
		}
	case yaml.SequenceNode:
		for i, c := range n.Content {
			leaves(c, fmt.Sprintf("%s[%d]", path, i), into)
		}
	case yaml.ScalarNode, yaml.DocumentNode, yaml.AliasNode:
		into[strings.TrimPrefix(path, ".")] = n.Value
	}
}
