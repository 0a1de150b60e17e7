package main

import (
	"errors"
	"fmt"
	"reflect"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"go.yaml.in/yaml/v3"
)

func newConfigCmd(e *env) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "config",
		Short: "Check or show a configuration file",
		Example: `  firn config check firn.yaml
  firn config show firn.yaml`,
	}
	cmd.AddCommand(&cobra.Command{
		Use:     "check FILE",
		Short:   "Print ok, or every error of the file with its line (exit status 1)",
		Example: "  firn config check firn.yaml",
		Args:    cobra.ExactArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			if _, err := askedConfig(args[0]); err != nil {
				return err
			}
			fmt.Fprintln(e.Stdout, "ok")
			return nil
		},
	}, &cobra.Command{
		Use:   "show FILE",
		Short: "Print the effective configuration, defaults and comments included, secrets masked",
		Long: `Show prints every setting with the value that it has in effect. Masked are values that come out of ${ENV} and ${file:PATH},
passwords, properties whose names speak of a secret (password, secret, token, credential, key, authorization), and user
names and passwords within URIs.`,
		Example: "  firn config show firn.yaml",
		Args:    cobra.ExactArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			cfg, err := askedConfig(args[0])
			if err != nil {
				return err
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

// askedConfig loads a file about which the answer may be no.
func askedConfig(file string) (*Config, error) {
	cfg, err := loadConfig(file)
	if _, unread := errors.AsType[*exitError](err); err != nil && !unread {
		err = &exitError{exitNo, err}
	}
	return cfg, err
}

// showConfig renders a configuration as YAML that loads again, but for masked secrets.
func showConfig(cfg *Config) ([]byte, error) {
	text, err := yaml.Marshal(configNode(reflect.ValueOf(*cfg), "", cfg.secrets))
	if err != nil {
		return nil, fmt.Errorf("show configuration: %w", err)
	}
	return text, nil
}

// configNode renders a part of a configuration. secrets are the paths of values with ${…}; nil: nothing is masked.
func configNode(v reflect.Value, path string, secrets map[string]string) *yaml.Node {
	if _, ok := secrets[path]; ok {
		return stringNode(masked)
	}
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
			n.Content = append(n.Content, stringNode(k), configNode(v.MapIndex(reflect.ValueOf(k)), join(path, k), secrets))
		}
		return n
	case reflect.String:
		if secrets != nil {
			return stringNode(visible(path, v.String()))
		}
		return stringNode(v.String())
	default:
		return scalarNode(fmt.Sprint(v.Interface()))
	}
}

func structNode(n *yaml.Node, v reflect.Value, path string, secrets map[string]string) {
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
