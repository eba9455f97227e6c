// SPDX-License-Identifier: Apache-2.0

package probes

import _ "embed"

// page is the whole of the page for people: markup, style and a script that
// reads /status. It is served as it is, whatever the report says, so that no
// text of a report can become a part of it. Nothing writes to it.
//
//go:embed page.html
var page []byte

// pagePolicy lets a browser run that script and use that style, by their
// hashes, ask this server, and nothing else. TestPagePolicy says what the
// hashes have to be.
const pagePolicy = "default-src 'none'; script-src 'sha256-M+oAHIYXsUHyv9nqnk0uxTITukVslaquog8n9DaDBCc='; style-src 'sha256-znRKKFLI80KFtLcdPb0vFH4QaD5V3V7/3/M45+sFjrM='; connect-src 'self'; " +
	"base-uri 'none'; form-action 'none'; frame-ancestors 'none'"

func pageResponse() Response {
	return Response{Status: 200, ContentType: "text/html; charset=utf-8", Body: page, policy: pagePolicy}
}
