// SPDX-License-Identifier: Apache-2.0

//go:build no_redis

package await

func redisSchemes() []Scheme { return nil }
