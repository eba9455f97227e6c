// SPDX-License-Identifier: Apache-2.0

// Command fetch downloads artifacts onto a volume: resumed, verified, unpacked
// where wanted, and published in one step.
package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/net/http/httpproxy"

	"github.com/cleanstart-dev/cleanimg-init/cmd/internal/cli"
	"github.com/cleanstart-dev/cleanimg-init/hooks"
	"github.com/cleanstart-dev/cleanimg-init/hooks/download"
)

func main() { cli.Main(tool()) }

// settings are the options as they were given.
type settings struct {
	item       download.Item
	list       []download.File
	manifest   string
	headers    []string
	headerFile string
	tokenEnv   string
	ca         string
	timeout    time.Duration
	options    download.Options
}

func tool() cli.Tool {
	var s settings
	return cli.Tool{
		Name: "fetch", Prefix: "FETCH",
		Usage: "fetch --url URL --output PATH [--sha256 DIGITS] [--unpack] [options]\nfetch --manifest FILE [--output DIR] [options]",
		About: `Downloads a file, or an archive which it unpacks. A connection that was cut is
taken up where it ended, and by a later run too when a checksum is given. The
output appears in one step, when all of it is there and verified; when the right
content is there already nothing is done. Several processes with one output
download once.`,
		Notes: `A manifest is YAML; outputs in it are below --output unless absolute:
  files:
  - {url: "https://example.com/m.bin", output: m.bin, sha256: "…"}
  - {url: "https://example.com/d.tgz", output: data, unpack: true, strip: 1}

Proxies: HTTPS_PROXY, HTTP_PROXY, NO_PROXY. Headers and tokens are sent to the
URL's own host only, never logged, and never sent in clear text without
--allow-http.`,
		Secret: []string{"header"},
		Flags:  s.register,
		Check:  s.complete,
		Run: func(ctx context.Context, p *cli.Process) error {
			if s.timeout > 0 {
				var cancel context.CancelFunc
				ctx, cancel = context.WithTimeoutCause(ctx, s.timeout, timeoutError{s.timeout})
				defer cancel()
			}
			return download.Run(ctx, s.list, s.options)
		},
	}
}

// timeoutError is what ends a run that took too long.
type timeoutError struct{ after time.Duration }

func (e timeoutError) Error() string { return fmt.Sprintf("not done within %v (--timeout)", e.after) }

func (e timeoutError) Is(target error) bool { return target == context.DeadlineExceeded }

func (s *settings) register(f *cli.Flags) {
	f.StringVar(&s.item.URL, "url", "", "`URL` the artifact: http, https or file")
	f.StringVar(&s.item.Output, "output", "", "`PATH` where the file goes; with --unpack its directory, with --manifest the directory of all")
	f.StringVar(&s.item.SHA256, "sha256", "", "`DIGITS` the SHA-256 that the content must have")
	f.StringVar(&s.item.SHA512, "sha512", "", "`DIGITS` the SHA-512 that the content must have")
	f.StringVar(&s.item.Checksums, "checksums", "", "`URL|PATH` a file as sha256sum writes it, in which the sum is looked up")
	f.BoolVar(&s.item.Unpack, "unpack", false, "unpack a tar, tar.gz, tar.bz2, tar.zst or zip into the output")
	f.IntVar(&s.item.Strip, "strip", 0, "`N` how many leading parts the names in the archive lose")
	f.StringVar(&s.item.Mode, "mode", "", "`MODE` the file's mode, octal (default 0644)")
	f.StringVar(&s.manifest, "manifest", "", "`FILE` a list of artifacts, instead of --url")
	f.IntVar(&s.options.Parallel, "parallel", 4, "`N` how many artifacts to download at once")
	f.StringArrayVar(&s.headers, "header", nil, "`NAME:VALUE` a header to send; may be repeated; better in a file")
	f.StringVar(&s.headerFile, "header-file", "", "`FILE` such headers, one a line")
	f.StringVar(&s.tokenEnv, "token-env", "", "`NAME` the variable with a bearer token, or its twin with _FILE")
	f.StringVar(&s.ca, "ca", "", "`FILE` more CA certificates, as PEM")
	f.Size(&s.options.MaxSize, "max-size", "how big a download may be, like 10Gi")
	f.Size(&s.options.MaxUnpacked, "max-unpacked", "how big the content of an archive may be")
	f.IntVar(&s.options.Tries, "tries", 10, "`N` how many tries in a row may bring nothing")
	f.Duration(&s.options.Stall, "stall-timeout", time.Minute, "how long a connection may bring nothing")
	f.Duration(&s.timeout, "timeout", 0, "how long all of it may take; without it for ever")
	f.BoolVar(&s.options.AllowHTTP, "allow-http", false, "send credentials without TLS, and follow redirects from https to http")
}

// complete finds the files, and fills in the options.
func (s *settings) complete(p *cli.Process) error {
	header, err := s.header(p)
	problems := []error{err}
	if len(p.Args) > 0 {
		problems = append(problems, fmt.Errorf("unexpected word %q: the URL is given by --url", p.Args[0]))
	}
	if s.options.Parallel < 1 || s.options.Tries < 1 {
		problems = append(problems, errors.New("--parallel and --tries: accepted is a whole number from 1"))
	}
	s.list, err = s.files(header)
	problems = append(problems, err)
	transport, err := s.transport(p.Environ)
	problems = append(problems, err)
	s.options.Transport, s.options.Log = transport, p.Log
	if p.Terminal {
		s.options.Terminal = p.Stderr
	}
	return errors.Join(append(problems, download.Check(s.list, s.options))...)
}

// files are those of the options or of the manifest.
func (s *settings) files(header http.Header) ([]download.File, error) {
	items, dir := []download.Item{s.item}, ""
	if s.manifest != "" {
		if s.item.URL != "" {
			return nil, errors.New("--url and --manifest are both given: write the URL into the manifest")
		}
		if s.item != (download.Item{Output: s.item.Output}) {
			return nil, errors.New("--sha256, --sha512, --checksums, --unpack, --strip and --mode are about one file: write them into the manifest")
		}
		f, err := os.Open(s.manifest)
		if err != nil {
			return nil, fmt.Errorf("--manifest: %w", err)
		}
		defer f.Close()
		if items, err = download.ReadManifest(f); err != nil {
			return nil, fmt.Errorf("--manifest %s: %w", s.manifest, err)
		}
		dir = s.item.Output
		if dir == "" {
			dir = filepath.Dir(s.manifest)
		}
	} else if s.item.URL == "" {
		return nil, errors.New("nothing to do: give --url and --output, or --manifest")
	}
	files, problems := make([]download.File, len(items)), make([]error, len(items))
	for i, item := range items {
		files[i], problems[i] = item.File(dir, header)
	}
	return files, errors.Join(problems...)
}

// header collects what is to be sent. What is wrong is named, not shown.
func (s *settings) header(p *cli.Process) (http.Header, error) {
	h := http.Header{}
	var problems []error
	add := func(where, line string) {
		name, value, ok := hooks.ParseHeader(line)
		if !ok || !strings.Contains(line, ":") {
			problems = append(problems, fmt.Errorf("%s: accepted is NAME: VALUE", where))
			return
		}
		h.Add(name, value)
		p.Redact.Add([]string{"HEADER_SECRET=" + value})
	}
	for i, line := range s.headers {
		add(fmt.Sprintf("--header, number %d", i+1), line)
	}
	if s.headerFile != "" {
		data, err := os.ReadFile(s.headerFile)
		if err != nil {
			problems = append(problems, fmt.Errorf("--header-file: %w", err))
		}
		text := strings.TrimPrefix(string(data), "\ufeff") // a byte order mark of Windows
		for i, line := range slices.Collect(strings.Lines(text)) {
			if line = strings.TrimSpace(line); line != "" && !strings.HasPrefix(line, "#") {
				add(fmt.Sprintf("--header-file %s, line %d", s.headerFile, i+1), line)
			}
		}
	}
	if s.tokenEnv != "" {
		token, found, err := hooks.Secret(p.Environ, s.tokenEnv)
		switch {
		case err != nil:
			problems = append(problems, fmt.Errorf("--token-env: %w", err))
		case !found:
			problems = append(problems, fmt.Errorf("--token-env %s: the variable is not set, nor is %[1]s_FILE", s.tokenEnv))
		default:
			add("--token-env "+s.tokenEnv, "Authorization: Bearer "+token)
			p.Redact.Add([]string{"TOKEN=" + token})
		}
	}
	return h, errors.Join(problems...)
}

// transport is how servers are reached.
func (s *settings) transport(environ []string) (http.RoundTripper, error) {
	t := http.DefaultTransport.(*http.Transport).Clone()
	t.DisableCompression = true // files are taken as they are
	proxy := proxies(environ).ProxyFunc()
	t.Proxy = func(r *http.Request) (*url.URL, error) { return proxy(r.URL) }
	t.TLSClientConfig = &tls.Config{MinVersion: tls.VersionTLS12}
	if s.ca == "" {
		return t, nil
	}
	pem, err := os.ReadFile(s.ca)
	if err != nil {
		return nil, fmt.Errorf("--ca: %w", err)
	}
	roots, err := x509.SystemCertPool()
	if err != nil {
		roots = x509.NewCertPool()
	}
	if !roots.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("--ca %s: there is no certificate in it (PEM is expected)", s.ca)
	}
	t.TLSClientConfig.RootCAs = roots
	return t, nil
}

// proxies reads the variables that curl reads too.
func proxies(environ []string) *httpproxy.Config {
	c := &httpproxy.Config{}
	for name, to := range map[string]*string{"HTTP_PROXY": &c.HTTPProxy, "HTTPS_PROXY": &c.HTTPSProxy, "NO_PROXY": &c.NoProxy} {
		for _, entry := range environ {
			key, value, _ := strings.Cut(entry, "=")
			if value != "" && (key == name || key == strings.ToLower(name)) {
				*to = value
			}
		}
	}
	return c
}
