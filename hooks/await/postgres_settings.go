// SPDX-License-Identifier: Apache-2.0

package await

import (
	"errors"
	"maps"
	"slices"
	"strings"
)

// clientParameters are those of libpq, lib/pq and pgx that belong to the client
// and can be left out without losing anything that was asked for. What makes a
// connection safer is not among them.
var clientParameters = []string{
	"fallback_application_name", "keepalives", "keepalives_idle", "keepalives_interval", "keepalives_count", "tcp_user_timeout",
	"sslcompression", "load_balance_hosts", "gsslib", "gssdelegation",
	"binary_parameters", "disable_prepared_binary_result",
	"default_query_exec_mode", "statement_cache_capacity", "description_cache_capacity",
}

// DropClientParameters removes the parameters of a PostgreSQL URL that pgconn
// does not know and would send to the server, which refuses the connection
// then. An application's URL has them for its own client.
func DropClientParameters(parameters map[string]string) {
	maps.DeleteFunc(parameters, func(name, value string) bool {
		return slices.Contains(clientParameters, name) || strings.HasPrefix(name, "pool_") || name == "gssencmode" && value != "require"
	})
}

// PostgresMistake is what pgconn says of settings that it cannot take, without
// the settings, which it quotes before.
func PostgresMistake(err error) error {
	parts := strings.Split(err.Error(), "`")
	if len(parts) != 3 { // it is not certain what was quoted
		return errors.New("failed to parse the settings")
	}
	return errors.New(strings.TrimPrefix(parts[2], ": "))
}
