// SPDX-License-Identifier: Apache-2.0

//go:build no_postgres

package await

func postgresSchemes() []Scheme { return nil }
