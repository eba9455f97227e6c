// SPDX-License-Identifier: Apache-2.0

//go:build no_http

package await

func httpSchemes() []Scheme { return nil }
