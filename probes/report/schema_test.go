// SPDX-License-Identifier: Apache-2.0

package report_test

import (
	"encoding/json"
	"maps"
	"os"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/cleanstart-dev/cleanimg-init/probes/report"
)

// schema is what we read of a part of docs/status.schema.json.
type schema struct {
	Properties map[string]schema
	Items      *schema
	Ref        string            `json:"$ref"`
	Defs       map[string]schema `json:"$defs"`
}

// TestSchemaHasEveryField: what is not in the published schema is no promise.
// Whether its types are right is held against real reports in package
// integration.
func TestSchemaHasEveryField(t *testing.T) {
	text, err := os.ReadFile("../../docs/status.schema.json")
	require.NoError(t, err)
	var root schema
	require.NoError(t, json.Unmarshal(text, &root))

	var compare func(path string, of reflect.Type, s schema)
	compare = func(path string, of reflect.Type, s schema) {
		if name, ok := strings.CutPrefix(s.Ref, "#/$defs/"); ok {
			s = root.Defs[name]
		}
		switch {
		case of.Kind() == reflect.Pointer:
			compare(path, of.Elem(), s)
			return
		case of.Kind() == reflect.Slice && s.Items != nil:
			compare(path+"[]", of.Elem(), *s.Items)
			return
		case of.Kind() != reflect.Struct || of.PkgPath() != reflect.TypeFor[report.Report]().PkgPath():
			return
		}
		var names []string
		for i := range of.NumField() {
			field := of.Field(i)
			name, _, _ := strings.Cut(field.Tag.Get("json"), ",")
			if name == "-" {
				continue
			}
			names = append(names, name)
			compare(path+"."+name, field.Type, s.Properties[name])
		}
		assert.ElementsMatch(t, names, slices.Collect(maps.Keys(s.Properties)), "%s in docs/status.schema.json", path)
	}
	compare("report", reflect.TypeFor[report.Report](), root)
}
