// SPDX-License-Identifier: Apache-2.0

//go:build no_mysql

package await

func mysqlSchemes() []Scheme { return nil }
