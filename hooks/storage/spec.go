// SPDX-License-Identifier: Apache-2.0

package storage

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"
)

// ParseEntry reads PATH[:MODE[:UID[:GID]]], the mode in octal. An empty part is
// kept as it is: "/data::65532".
func ParseEntry(s string) (Entry, error) {
	e := Entry{Mode: Keep, UID: Keep, GID: Keep}
	parts := strings.Split(s, ":")
	if e.Path = parts[0]; e.Path == "" || len(parts) > 4 {
		return e, fmt.Errorf("%q: accepted is PATH[:MODE[:UID[:GID]]], like /app/data:0750 or /app/data:2770:65532:65532", s)
	}
	var problems []error
	for i, part := range parts[1:] {
		if part == "" {
			continue
		}
		var err error
		switch i {
		case 0:
			e.Mode, err = parseMode(part)
		case 1:
			e.UID, err = parseID("owner", part)
		case 2:
			e.GID, err = parseID("group", part)
		}
		if err != nil {
			problems = append(problems, fmt.Errorf("%q: %w", s, err))
		}
	}
	return e, errors.Join(problems...)
}

func parseMode(s string) (int, error) {
	mode, err := strconv.ParseUint(s, 8, 16)
	if err != nil || mode > 0o7777 {
		return Keep, fmt.Errorf("mode %q: accepted is an octal number from 0000 to 7777, like 0750", s)
	}
	return int(mode), nil
}

func parseID(what, s string) (int, error) {
	id, err := strconv.ParseUint(s, 10, 32)
	if err != nil || id > math.MaxUint32-1 {
		return Keep, fmt.Errorf("%s %q: accepted is a number: there may be no /etc/passwd to look a name up in", what, s)
	}
	return int(id), nil
}

// Load adds to p what a YAML list says:
//
//	dirs:
//	- /app/logs:0755
//	- {path: /app/data, mode: "2770", gid: 65532, recursive: true}
//	files:
//	- /app/data/.ready
//
// Every problem is reported at once, with its line.
func (p *Plan) Load(r io.Reader) error {
	data, err := io.ReadAll(r)
	if err != nil {
		return err
	}
	var l struct {
		Dirs  []yaml.Node `yaml:"dirs"`
		Files []yaml.Node `yaml:"files"`
	}
	d := yaml.NewDecoder(bytes.NewReader(data))
	d.KnownFields(true)
	if err := d.Decode(&l); err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	var second yaml.Node
	if err := d.Decode(&second); err == nil {
		return fmt.Errorf("line %d: a second document: it would not be read", second.Line)
	} else if !errors.Is(err, io.EOF) {
		return err
	}
	var problems []error
	add := func(to *[]Entry, nodes []yaml.Node) {
		for i := range nodes {
			e, err := entryOf(&nodes[i])
			if err != nil {
				problems = append(problems, fmt.Errorf("line %d: %w", nodes[i].Line, err))
			}
			*to = append(*to, e)
		}
	}
	add(&p.Dirs, l.Dirs)
	add(&p.Files, l.Files)
	for _, e := range p.Files {
		if e.Recursive {
			problems = append(problems, fmt.Errorf("%s: recursive is for directories", e.Path))
		}
	}
	return errors.Join(problems...)
}

func entryOf(n *yaml.Node) (Entry, error) {
	e := Entry{Mode: Keep, UID: Keep, GID: Keep}
	switch n.Kind {
	case yaml.ScalarNode:
		return ParseEntry(n.Value)
	case yaml.MappingNode:
	default:
		return e, errors.New("accepted are PATH[:MODE[:UID[:GID]]] and {path, mode, uid, gid, recursive}")
	}
	var problems []error
	seen := map[string]bool{}
	for i := 0; i+1 < len(n.Content); i += 2 {
		key, value := n.Content[i].Value, n.Content[i+1]
		var err error
		if seen[key] {
			problems = append(problems, fmt.Errorf("the key %q is there twice", key))
		}
		seen[key] = true
		switch key { // the text of the number: for YAML 1.2 0750 is not octal
		case "path":
			e.Path = value.Value
		case "mode":
			e.Mode, err = parseMode(value.Value)
		case "uid":
			e.UID, err = parseID("owner", value.Value)
		case "gid":
			e.GID, err = parseID("group", value.Value)
		case "recursive":
			err = value.Decode(&e.Recursive)
		default:
			err = fmt.Errorf("unknown key %q: there are path, mode, uid, gid and recursive", key)
		}
		if err != nil {
			problems = append(problems, err)
		}
	}
	if e.Path == "" {
		problems = append(problems, errors.New("path is missing"))
	}
	return e, errors.Join(problems...)
}
