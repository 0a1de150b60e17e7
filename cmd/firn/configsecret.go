package main

import (
	"cmp"
	"errors"
	"log/slog"
	"maps"
	"reflect"
	"regexp"
	"slices"
	"strings"
)

const masked = "********"

// visible is a setting's text without what is secret in it: all of it by the setting's name, or what a URI says of a user.
func visible(path, text string) string {
	if text != "" && secretPath(path) {
		return masked
	}
	return maskURI(text)
}

var (
	secretWord = regexp.MustCompile(`(?i)passw|passphrase|pwd|secret|token|credential|authorization|cookie|key(s|[^a-z].*)?$`)
	userInfo   = regexp.MustCompile(`([A-Za-z][A-Za-z0-9+.-]*://)[^/\s]*@`)
	parameter  = regexp.MustCompile(`(?i)(\w*(?:passw|pwd|secret|token|key)\w*=)[^&;\s]+`)
)

// secretPath reports whether the name of a setting says that it is secret. Of the free maps any name may be.
func secretPath(path string) bool {
	if _, name, free := strings.Cut(path, ".properties."); free {
		return secretWord.MatchString(name) || strings.HasPrefix(name, "header.")
	}
	return strings.HasSuffix(path, ".password") || strings.HasSuffix(path, ".salt")
}

// maskURI masks the user and password of a URI, and parameters such as password=….
func maskURI(text string) string {
	return parameter.ReplaceAllString(userInfo.ReplaceAllString(text, "${1}"+masked+"@"), "${1}"+masked)
}

// leastHidden is the length from which a secret is looked for in text that does not say which setting it speaks of: a
// shorter one would hide innocent words.
const leastHidden = 6

// hider returns a function that takes the secrets of a configuration out of text that other parts wrote: errors, logs.
// What came out of ${…} becomes its reference.
func (c *Config) hider() func(string) string {
	hide := map[string]string{}
	values := map[string]string{}
	leaves(configNode(reflect.ValueOf(*c), "", nil), "", values)
	for path, text := range values {
		if shown := visible(path, text); shown != text {
			hide[text] = shown
		}
	}
	maps.Copy(hide, c.expanded)
	var pairs []string
	for _, text := range slices.SortedFunc(maps.Keys(hide), func(a, b string) int { return cmp.Or(cmp.Compare(len(b), len(a)), cmp.Compare(a, b)) }) {
		if len(text) >= leastHidden {
			pairs = append(pairs, text, hide[text])
		}
	}
	return strings.NewReplacer(pairs...).Replace
}

// hidden is err without the secrets of the configuration, with its exit status.
func (c *Config) hidden(err error) error {
	if err == nil {
		return nil
	}
	text := c.hider()(err.Error())
	if text == err.Error() {
		return err
	}
	if exit, ok := errors.AsType[*exitError](err); ok {
		return &exitError{exit.code, errors.New(text)}
	}
	return errors.New(text)
}

// hideAttr returns slog's ReplaceAttr with the secrets of a configuration taken out.
func (c *Config) hideAttr() func([]string, slog.Attr) slog.Attr {
	hide := c.hider()
	return func(_ []string, a slog.Attr) slog.Attr {
		switch a.Value.Kind() {
		case slog.KindString:
			a.Value = slog.StringValue(hide(a.Value.String()))
		case slog.KindAny:
			if err, ok := a.Value.Any().(error); ok {
				a.Value = slog.StringValue(hide(err.Error()))
			}
		default: // numbers and times
		}
		return a
	}
}
