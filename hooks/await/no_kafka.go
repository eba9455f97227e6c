// SPDX-License-Identifier: Apache-2.0

//go:build no_kafka

package await

func kafkaSchemes() []Scheme { return nil }
