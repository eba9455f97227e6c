// SPDX-License-Identifier: Apache-2.0

package await

import (
	"fmt"
	"os"
)

// roles are the programs that the test binary can pretend to be.
var roles = map[string]func() int{
	"fail": func() int {
		fmt.Fprintln(os.Stderr, "first line")
		fmt.Fprintln(os.Stderr, "not yet: "+os.Args[1])
		return 3
	},
}
