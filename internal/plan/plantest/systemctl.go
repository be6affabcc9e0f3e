// SPDX-License-Identifier: Apache-2.0

package plantest

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// Systemctl plays systemctl(1) on the files of a tree: enable and disable make
// and remove the links of [Install], start, restart and stop keep a file per
// unit that runs in /run/lab. called, if not nil, is told each command first.
func Systemctl(root string, called func(argv []string) error) func(context.Context, []string) ([]byte, error) {
	const etc, state = "/etc/systemd/system/", "/run/lab/"
	at := func(p string) string { return filepath.Join(root, p) }
	return func(_ context.Context, argv []string) ([]byte, error) {
		if len(argv) != 5 || argv[0] != "systemctl" || argv[1] != "--no-ask-password" || argv[3] != "--" {
			return nil, fmt.Errorf("unexpected command %q", argv)
		}
		if called != nil {
			if err := called(argv); err != nil {
				return nil, err
			}
		}
		verb, unit := argv[2], argv[4]
		text, err := os.ReadFile(at(etc + unit))
		if err != nil && verb != "stop" {
			return []byte("Unit " + unit + " could not be found."), errors.New("exit status 5")
		}
		link := ""
		for line := range strings.Lines(string(text)) {
			if v, ok := strings.CutPrefix(strings.TrimSpace(line), "WantedBy="); ok {
				link = at(etc + v + ".wants/" + unit)
			}
		}
		switch verb {
		case "enable":
			if err := os.MkdirAll(filepath.Dir(link), 0o755); err != nil {
				return nil, err
			}
			if err := os.Symlink(etc+unit, link); !errors.Is(err, os.ErrExist) {
				return nil, err
			}
			return nil, nil
		case "disable":
			_ = os.Remove(link)
			_ = os.Remove(filepath.Dir(link)) // when it is empty
			return nil, nil
		case "start", "restart":
			if err := os.MkdirAll(at(state), 0o755); err != nil {
				return nil, err
			}
			return nil, os.WriteFile(at(state+unit), nil, 0o644)
		case "stop":
			_ = os.Remove(at(state + unit))
			return nil, nil
		}
		return nil, fmt.Errorf("unexpected command %q", argv)
	}
}

// Runs lists the units that Systemctl has started and not stopped.
func Runs(root string) []string {
	var out []string
	all, _ := os.ReadDir(filepath.Join(root, "/run/lab"))
	for _, e := range all {
		out = append(out, e.Name())
	}
	slices.Sort(out)
	return out
}
