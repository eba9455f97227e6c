// SPDX-License-Identifier: Apache-2.0

package config

import (
	"fmt"
	"testing"
)

// BenchmarkRender renders 1,000 small templates.
func BenchmarkRender(b *testing.B) {
	for _, secret := range []string{"A=1", "A_PASSWORD=secret"} {
		b.Run(secret, func(b *testing.B) {
			o := Options{TemplateDir: b.TempDir(), Environ: []string{"HOST=h", secret}}
			for i := range 1000 {
				writeFile(b, fmt.Sprintf("%s/%d.yaml.tmpl", o.TemplateDir, i), "# number\nserver:\n  host: {{ env \"HOST\" }}\n  port: {{ .Env.HOST }}\n  user: {{ .Values.no | default 1 }}\n")
			}
			for b.Loop() {
				if _, err := Render(b.Context(), o); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
