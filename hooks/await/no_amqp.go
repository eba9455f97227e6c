// SPDX-License-Identifier: Apache-2.0

//go:build no_amqp

package await

func amqpSchemes() []Scheme { return nil }
