// SPDX-License-Identifier: Apache-2.0

package await

import "time"

// A backoff gives the pauses between tries: a random part of a bound that
// grows by half with each one, which keeps clients that started together apart.
type backoff struct {
	longest time.Duration
	nobody  time.Duration // the bound while nothing listens
	bound   time.Duration
	reached kind
	random  func() float64 // from 0 to 1
}

func newBackoff(longest time.Duration, services int, random func() float64) *backoff {
	quick := max(nobodyInterval, time.Duration(services)*2*time.Second/nobodyRate)
	return &backoff{longest: longest, nobody: min(longest, quick), random: random}
}

// after returns the pause after a try that ended so. When the service has come
// further than before, the pauses become short again: it is about to be ready.
func (b *backoff) after(k kind) time.Duration {
	if k > b.reached {
		b.reached, b.bound = k, 0
	}
	longest := b.longest
	if k == nobody {
		longest = b.nobody
	}
	b.bound = min(max(b.bound*3/2, firstInterval), longest)
	// Never nothing: a whole row of small numbers would be a busy loop.
	return max(time.Duration(b.random()*float64(b.bound)), b.bound/10)
}
