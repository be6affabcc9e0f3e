// SPDX-License-Identifier: Apache-2.0

package facts

import (
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"path"
	"strings"

	"github.com/hostcheck/hostcheck/internal/host"
)

// maxConfig bounds the decompressed kernel configuration, which is about
// 300 kB in a distribution.
const maxConfig = 4 << 20

// readConfig finds the configuration of the running kernel: its own copy, or
// the file that distributions install for its release.
func readConfig(h *host.Host, release *string) (config map[string]string, source string, err error) {
	const own = "/proc/config.gz"
	b, ownErr := h.Read(own)
	if ownErr == nil {
		text, err := gunzip(b)
		if err != nil {
			return nil, "", &host.Error{Op: "read", Path: own, Err: err}
		}
		return parseKconfig(text), own, nil
	}
	if !host.Absent(ownErr) {
		err = ownErr
	}
	if release == nil {
		return nil, "", errors.New("/proc/config.gz: no such file, and the kernel release is not known")
	}
	places := []string{"/boot/config-" + *release, "/lib/modules/" + *release + "/config", "/usr/lib/modules/" + *release + "/config"}
	for _, p := range places {
		b, e := h.Read(p)
		if e == nil {
			return parseKconfig(string(b)), p, nil
		}
		if err == nil && !host.Absent(e) {
			err = e
		}
	}
	if err == nil {
		err = fmt.Errorf("neither %s nor %s exists", own, strings.Join(places[:2], " nor "))
	}
	return nil, "", err
}

func gunzip(b []byte) (string, error) {
	r, err := gzip.NewReader(bytes.NewReader(b))
	if err != nil {
		return "", fmt.Errorf("not a gzip file: %w", err)
	}
	var text strings.Builder
	n, err := io.Copy(&text, io.LimitReader(r, maxConfig+1))
	switch {
	case err != nil:
		return "", fmt.Errorf("broken gzip file: %w", err)
	case n > maxConfig:
		return "", host.ErrTooLarge
	}
	return text.String(), nil
}

// parseKconfig reads a kernel configuration: CONFIG_X=y, =m, =0x10 or
// ="text" with \" and \\. Options that are not set are left out.
func parseKconfig(text string) map[string]string {
	m := make(map[string]string, strings.Count(text, "=")+1)
	for line := range strings.SplitSeq(text, "\n") {
		if !strings.HasPrefix(line, "CONFIG_") {
			continue
		}
		name, v, ok := strings.Cut(strings.TrimRight(line, " \t\r"), "=")
		if !ok || v == "n" {
			continue
		}
		if len(v) >= 2 && v[0] == '"' && v[len(v)-1] == '"' {
			v = v[1 : len(v)-1]
			if strings.Contains(v, `\`) {
				v = strings.NewReplacer(`\\`, `\`, `\"`, `"`).Replace(v)
			}
		}
		m[name] = v
	}
	return m
}

// validRelease keeps a release that is not a file name out of paths.
func validRelease(s string) bool {
	return s != "" && len(s) < 65 && s == path.Base(s) && s != "." && s != ".."
}
