package file

import (
	"errors"
	"fmt"
	"log/slog"
	"regexp"
	"strings"
	"time"
)

// Options are the settings of one file source.
type Options struct {
	// Name is the source's configured name: part of stored positions. Required.
	Name string
	// Path names the recording; ".gz" at its end means gzip. Required.
	Path string
	// Follow goes on reading as the file grows. Not for gzip.
	Follow bool
	// Topics are anchored regular expressions of what to read. Default: all topics of the file.
	Topics []string
	// Exclude are anchored regular expressions of topics to leave out.
	Exclude []string
	// Poll is how often a followed file is looked at. Default 200ms.
	Poll time.Duration

	Logger *slog.Logger // nil: nothing is logged
}

// EnsureDefaults fills in what is not set.
func (o *Options) EnsureDefaults() {
	if o.Poll == 0 {
		o.Poll = 200 * time.Millisecond
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
}

// Validate reports all that is wrong with o.
func (o *Options) Validate() error {
	var errs []error
	if o.Name == "" {
		errs = append(errs, errors.New("no name"))
	}
	if o.Path == "" {
		errs = append(errs, errors.New("no path"))
	}
	if o.Follow && zipped(o.Path) {
		errs = append(errs, fmt.Errorf("%s: a gzip file cannot be followed", o.Path))
	}
	if o.Poll < 0 {
		errs = append(errs, fmt.Errorf("poll: %s is negative", o.Poll))
	}
	for _, p := range append(append([]string(nil), o.Topics...), o.Exclude...) {
		if _, err := regexp.Compile(anchor(p)); err != nil {
			errs = append(errs, fmt.Errorf("topic pattern %q: %w", p, err))
		}
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("file source %q: %w", o.Name, err)
	}
	return nil
}

func anchor(pattern string) string { return "^(?:" + pattern + ")$" }

func zipped(path string) bool { return strings.HasSuffix(path, ".gz") }
