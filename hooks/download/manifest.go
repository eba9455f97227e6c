// SPDX-License-Identifier: Apache-2.0

package download

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"path/filepath"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"
)

// An Item is a file as a manifest names it.
type Item struct {
	URL       string `yaml:"url"`
	Output    string `yaml:"output"`
	SHA256    string `yaml:"sha256"`
	SHA512    string `yaml:"sha512"`
	Checksums string `yaml:"checksums"`
	Unpack    bool   `yaml:"unpack"`
	Strip     int    `yaml:"strip"`
	Mode      string `yaml:"mode"`
}

// ReadManifest reads a list of files:
//
//	files:
//	- {url: https://…, output: m.bin, sha256: …}
//	- {url: https://…, output: data, unpack: true, strip: 1}
//
// It returns the items; every problem of the form is reported at once.
func ReadManifest(r io.Reader) ([]Item, error) {
	data, err := io.ReadAll(r)
	if err != nil {
		return nil, err
	}
	var m struct {
		Files []Item `yaml:"files"`
	}
	d := yaml.NewDecoder(bytes.NewReader(data))
	d.KnownFields(true)
	if err := d.Decode(&m); err != nil && !errors.Is(err, io.EOF) {
		return nil, err
	}
	var second yaml.Node
	if err := d.Decode(&second); err == nil {
		return nil, fmt.Errorf("line %d: a second document: it would not be read", second.Line)
	} else if !errors.Is(err, io.EOF) {
		return nil, err
	}
	if len(m.Files) == 0 {
		return nil, errors.New(`there are no files in it: it begins with "files:"`)
	}
	return m.Files, nil
}

// File returns what is to be fetched for the item, with its output below dir
// unless that is absolute. All problems are reported at once.
func (i Item) File(dir string, header http.Header) (File, error) {
	f := File{URL: i.URL, Output: i.Output, Checksums: i.Checksums, Unpack: i.Unpack, Strip: i.Strip, Header: header}
	if dir != "" && i.Output != "" && !filepath.IsAbs(i.Output) {
		f.Output = filepath.Join(dir, i.Output)
		if strings.HasSuffix(i.Output, "/") {
			f.Output += "/" // for Check, to which it is a directory
		}
	}
	var problems []error
	add := func(err error) {
		if err != nil {
			problems = append(problems, fmt.Errorf("output %s: %w", f.Output, err))
		}
	}
	var err error
	switch {
	case i.SHA256 != "" && i.SHA512 != "":
		add(errors.New("sha256 and sha512 are both given: one is enough"))
	case i.SHA256 != "":
		f.Sum, err = ParseSum(SHA256, i.SHA256)
	case i.SHA512 != "":
		f.Sum, err = ParseSum(SHA512, i.SHA512)
	}
	add(err)
	if i.Mode != "" {
		mode, err := strconv.ParseUint(i.Mode, 8, 16)
		if err != nil || mode > 0o777 || i.Unpack {
			add(fmt.Errorf("mode %q: accepted is an octal number up to 0777, for a file that is not unpacked", i.Mode))
		}
		f.Mode = fs.FileMode(mode)
	}
	return f, errors.Join(problems...)
}
