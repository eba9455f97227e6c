// SPDX-License-Identifier: Apache-2.0

package migration

import (
	"os"
	"testing"

	"github.com/cleanstart-dev/cleanimg-init/integration/dbtest"
)

func TestMain(m *testing.M) { os.Exit(dbtest.Main(m)) }
