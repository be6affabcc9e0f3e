// SPDX-License-Identifier: Apache-2.0

package report

import (
	"bytes"
	"encoding/json"
)

// JSON gives v as every JSON output of hostcheck is written: indented by two
// spaces, "<" and "&" as they are, one newline at the end.
func JSON(v any) ([]byte, error) {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	e.SetIndent("", "  ")
	if err := e.Encode(v); err != nil {
		return nil, err
	}
	return b.Bytes(), nil
}
