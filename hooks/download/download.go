// SPDX-License-Identifier: Apache-2.0

// Package download fetches artifacts (models, data sets, archives) onto a
// volume: resumed where a connection was cut, verified, and published by one
// rename, so that whoever reads the output never sees half of it.
//
// Of several processes that fetch the same output one does it and the others
// wait; a run that finds the right content in place does nothing.
package download

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net/http"
	"path/filepath"
	"sync"
	"time"
)

// A File is one artifact.
type File struct {
	URL    string // http, https or file
	Output string // the file, or with Unpack the directory
	// Sum is what the content must have; zero: not known, and then Checksums,
	// a URL or a path of a file with sums, is asked for it by the last part of
	// the URL's path. With neither the content is taken as it comes.
	Sum       Sum
	Checksums string
	// Unpack takes the content for an archive: tar, tar.gz, tar.bz2, tar.zst or
	// zip, told apart by their first bytes.
	Unpack bool
	Strip  int         // leading parts that each name in the archive loses
	Mode   fs.FileMode // of the output; 0: 0644. Archives bring their own.
	// Header is sent to the URL's own host only, and taken for secret.
	Header http.Header
}

// Options are what all files have in common. The zero value has no limit but
// those of the defaults that are named.
type Options struct {
	Transport   http.RoundTripper // nil: http.DefaultTransport
	MaxSize     int64             // bytes of a file as it is sent; 0: any
	MaxUnpacked int64             // bytes of what is in an archive; 0: any
	Tries       int               // in a row without a byte; 0: 10
	Stall       time.Duration     // without a byte, until a try is given up; 0: 1m
	Parallel    int               // files at once; 0: 4
	AllowHTTP   bool              // credentials without TLS, and redirects that leave it
	Log         *slog.Logger
	Terminal    io.Writer // where progress is drawn; nil: it is logged now and then
}

const (
	defaultTries    = 10
	defaultStall    = time.Minute
	defaultParallel = 4
	defaultMode     = 0o644
)

// Check finds what is wrong with the files before anything is fetched: all
// problems at once.
func Check(files []File, o Options) error {
	var problems []error
	seen := map[string]bool{}
	for _, f := range files {
		if err := f.check(o); err != nil {
			problems = append(problems, err)
		}
		out := filepath.Clean(f.Output)
		if seen[out] {
			problems = append(problems, fmt.Errorf("%s is the output of two files", out))
		}
		seen[out] = true
	}
	return errors.Join(problems...)
}

// Run fetches the files and blocks until all are in place, one could not be
// had, or ctx ends. The others are finished all the same; what is there of a
// file that was cut short is kept beside its output, for the next run, when its
// sum is known.
func Run(ctx context.Context, files []File, o Options) error {
	if err := Check(files, o); err != nil {
		return err
	}
	o = o.withDefaults()
	p := newProgress(o)
	defer p.stop()
	slots := make(chan struct{}, o.Parallel)
	problems := make([]error, len(files))
	var all sync.WaitGroup
	for i, f := range files {
		slots <- struct{}{}
		all.Go(func() {
			defer func() { <-slots }()
			if ctx.Err() != nil {
				problems[i] = context.Cause(ctx)
				return
			}
			if err := newFetch(f, o, p).run(ctx); err != nil {
				problems[i] = fmt.Errorf("fetch %s from %s: %w", f.Output, shownURL(f.URL), err)
			}
		})
	}
	all.Wait()
	return errors.Join(problems...)
}

func (o Options) withDefaults() Options {
	if o.Transport == nil {
		o.Transport = http.DefaultTransport
	}
	if o.Tries <= 0 {
		o.Tries = defaultTries
	}
	if o.Stall <= 0 {
		o.Stall = defaultStall
	}
	if o.Parallel <= 0 {
		o.Parallel = defaultParallel
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	return o
}

// permanentError is one that another try can't mend.
type permanentError struct{ error }

func (e permanentError) Unwrap() error { return e.error }

func permanent(format string, args ...any) error {
	return permanentError{fmt.Errorf(format, args...)}
}
