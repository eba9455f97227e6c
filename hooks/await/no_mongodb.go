// SPDX-License-Identifier: Apache-2.0

//go:build no_mongodb

package await

func mongodbSchemes() []Scheme { return nil }
