// SPDX-License-Identifier: Apache-2.0

//go:build no_nats

package await

func natsSchemes() []Scheme { return nil }
