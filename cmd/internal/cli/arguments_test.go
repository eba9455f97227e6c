// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
)

func TestSecretsInArgumentsAreOverwritten(t *testing.T) {
	t.Parallel()
	given := []string{
		"ask", "--database", "postgres://app:hunter22@db:5432/shop?sslmode=require", "-database=mysql://app:hun@ter22@tcp(db:3306)/shop",
		"redis://:x@cache", "--url=https://host/a@b", "host=db password=hunter22 user=app", "https://host/m?token=hunter22&part=1",
		"http://host/#status=2xx&request-header=Authorization:Bearer hunter22&body=ok", "--service=http://host/#request-header=X-Key:hunter22",
		"--header", "X-Key: hunter22", "--header=X-Key: hunter22", "--header-file", "/run/headers", "http://host/plain",
		"--", "postgres://app:hunter22@db",
	}
	args := make([]string, len(given))
	for i, arg := range given {
		args[i] = string([]byte(arg)) // memory that may be written
	}
	kept := hideSecrets(args, "header")
	assert.Equal(t, given, kept, "the program sees what was given")
	trimmed := make([]string, len(args))
	for i, arg := range args {
		assert.Len(t, arg, len(given[i]))
		trimmed[i] = strings.TrimRight(arg, " ")
	}
	assert.Equal(t, []string{
		"ask", "--database", "postgres://xxxxxxxxxxxx@db:5432/shop?sslmode=require", "-database=mysql://xxxxxxxxxxxxx@tcp(db:3306)/shop",
		"redis://xx@cache", "--url=https://xxxxxx@b", "host=db password=*** user=app", "https://host/m?token=***&part=1",
		"http://host/#status=2xx&request-header=xxxxxxxxxxxxxxxxxxxxxxxxxxxxx&body=ok", "--service=http://host/#request-header=xxxxxxxxxxxxxx",
		"--header", "xxxxxxxxxxxxxxx", "--header=xxxxxxxxxxxxxxx", "--header-file", "/run/headers", "http://host/plain",
		"--", "postgres://app:hunter22@db",
	}, trimmed)
}
