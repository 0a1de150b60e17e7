package main

import (
	"fmt"
	"reflect"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"go.yaml.in/yaml/v3"
)

func newConfigCmd(e *env) *cobra.Command {
	cmd := &cobra.Command{Use: "config", Short: "Check or show a configuration file"}
	cmd.AddCommand(&cobra.Command{
		Use:     "check FILE",
		Short:   "Print ok, or every error of the file (exit status 1)",
		Example: "  firn config check firn.yaml",
		Args:    cobra.ExactArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			if _, err := loadConfig(args[0]); err != nil {
				return &exitError{exitNo, err}
			}
			fmt.Fprintln(e.Stdout, "ok")
			return nil
		},
	}, &cobra.Command{
		Use:     "show FILE",
		Short:   "Print the effective configuration, defaults and comments included, secrets masked",
		Example: "  firn config show firn.yaml",
		Args:    cobra.ExactArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			cfg, err := loadConfig(args[0])
			if err != nil {
				return &exitError{exitNo, err}
			}
			text, err := showConfig(cfg)
			if err != nil {
				return err
			}
			_, err = e.Stdout.Write(text)
			return err
		},
	})
	return cmd
}

// showConfig renders a configuration as YAML that loads again, but for masked secrets.
func showConfig(cfg *Config) ([]byte, error) {
	text, err := yaml.Marshal(configNode(reflect.ValueOf(*cfg), "", cfg.secrets))
	if err != nil {
		return nil, fmt.Errorf("show configuration: %w", err)
	}
	return text, nil
}

const masked = "********"

func configNode(v reflect.Value, path string, secrets map[string]bool) *yaml.Node {
	switch x := v.Interface().(type) {
	case time.Duration:
		return scalarNode(shortDuration(x))
	case Size:
		return scalarNode(x.String())
	case keyRoute:
		if x.Mode == "columns" {
			return configNode(reflect.ValueOf(x.Columns), path, secrets)
		}
		if x.Mode == "" {
			return scalarNode("message")
		}
		return scalarNode(x.Mode)
	}
	switch v.Kind() {
	case reflect.Pointer:
		return configNode(v.Elem(), path, secrets)
	case reflect.Struct:
		n := &yaml.Node{Kind: yaml.MappingNode}
		structNode(n, v, path, secrets)
		return n
	case reflect.Slice:
		n := &yaml.Node{Kind: yaml.SequenceNode}
		for i := range v.Len() {
			n.Content = append(n.Content, configNode(v.Index(i), fmt.Sprintf("%s[%d]", path, i), secrets))
		}
		if v.Len() == 0 || v.Type().Elem().Kind() == reflect.String {
			n.Style = yaml.FlowStyle
		}
		return n
	case reflect.Map:
		n := &yaml.Node{Kind: yaml.MappingNode}
		if v.Len() == 0 {
			n.Style = yaml.FlowStyle
		}
		for _, k := range sortedKeys(v.Interface().(map[string]string)) {
			value := v.MapIndex(reflect.ValueOf(k)).String()
			if secrets[join(path, k)] || path == "catalog.properties" && secretProperty(k) {
				value = masked
			}
			n.Content = append(n.Content, stringNode(k), stringNode(value))
		}
		return n
	case reflect.String:
		if v.Len() > 0 && (secrets[path] || strings.HasSuffix(path, ".password")) {
			return stringNode(masked)
		}
		if path == "catalog.uri" {
			return stringNode(maskURI(v.String()))
		}
		return stringNode(v.String())
	default:
		return scalarNode(fmt.Sprint(v.Interface()))
	}
}

func structNode(n *yaml.Node, v reflect.Value, path string, secrets map[string]bool) {
	for i := range v.NumField() {
		f := v.Type().Field(i)
		if f.Anonymous {
			structNode(n, v.Field(i), path, secrets)
			continue
		}
		key := f.Tag.Get("yaml")
		if key == "" || v.Field(i).Kind() == reflect.Pointer && v.Field(i).IsNil() {
			continue
		}
		name := stringNode(key)
		name.HeadComment = f.Tag.Get("doc")
		n.Content = append(n.Content, name, configNode(v.Field(i), join(path, key), secrets))
	}
}

func stringNode(s string) *yaml.Node {
	n := &yaml.Node{}
	n.SetString(s)
	return n
}

func scalarNode(s string) *yaml.Node { return &yaml.Node{Kind: yaml.ScalarNode, Value: s} }

// shortDuration writes 24h, not 24h0m0s.
func shortDuration(d time.Duration) string {
	s := d.String()
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	if strings.HasSuffix(s, "h0m") {
		s = strings.TrimSuffix(s, "0m")
	}
	return s
}
