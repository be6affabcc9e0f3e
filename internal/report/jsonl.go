// SPDX-License-Identifier: Apache-2.0

package report

import (
	"bytes"
	"encoding/json"
)

// JSONLine gives the JSON of v on one line: for a file with a line per host.
func JSONLine(v any) ([]byte, error) {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(v); err != nil {
		return nil, err
	}
	return printable(b.Bytes()), nil
}
