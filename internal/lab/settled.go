// SPDX-License-Identifier: Apache-2.0

package lab

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// ModulesDir is where the guest has the lab's kernel modules.
const ModulesDir = "/usr/local/lib/hostcheck-lab"

// bootTime is how long a guest may take to come up: 30 to 60 s under TCG on
// two cores, and more where others work beside it.
const bootTime = 8 * time.Minute

// Boot starts a new guest from its boot loader and waits until it is settled.
func (l *Lab) Boot(ctx context.Context, o Options) (*Guest, error) {
	base, err := l.baseDisk(o)
	if err != nil {
		return nil, err
	}
	return l.boot(ctx, o, base)
}

// boot starts a guest on an overlay and waits until it is settled; one that
// stalls is started again, three times in all.
func (l *Lab) boot(ctx context.Context, o Options, base drive) (*Guest, error) {
	for try := 1; ; try++ {
		g, err := l.onOverlay(ctx, o, base)
		if err != nil {
			return nil, err
		}
		if err = g.Settle(ctx); err == nil {
			return g, nil
		}
		g.Close()
		if try == 3 || !errors.Is(err, ErrStalled) {
			return nil, err
		}
		l.say("guest %s: %v; it is started again", g.Name, err)
	}
}

// baseDisk is what new guests boot: the settled guest's disk where there is
// one of this machine, else the image.
func (l *Lab) baseDisk(o Options) (drive, error) {
	if o.UEFI {
		dir, err := l.uefi()
		return drive{filepath.Join(dir, "disk.qcow2"), "qcow2"}, err
	}
	dir, err := l.settled()
	return drive{filepath.Join(dir, "disk.qcow2"), "qcow2"}, err
}

// Settled starts a new guest from the snapshot of one that has booted: a
// matter of a second or two.
func (l *Lab) Settled(ctx context.Context, o Options) (*Guest, error) {
	if o.Watchdog || o.UEFI || o.Bare {
		return nil, errors.New("lab: the snapshot is of the plain machine: use Boot")
	}
	dir, err := l.settled()
	if err != nil {
		return nil, err
	}
	g, err := l.onOverlay(ctx, o, drive{filepath.Join(dir, "disk.qcow2"), "qcow2"}, "-incoming", "defer")
	if err != nil {
		return nil, err
	}
	if err := g.load(ctx, filepath.Join(dir, "memory")); err != nil {
		g.Close()
		return nil, err
	}
	if _, err := g.Await(ctx); err != nil {
		g.Close()
		return nil, err
	}
	// the guest's clock stood still since the snapshot was made
	if _, err := g.Run(ctx, fmt.Sprintf("date -s @%d", time.Now().Unix())); err != nil {
		g.Close()
		return nil, err
	}
	return g, nil
}

// mappedRAM is the layout of a snapshot in which each page has its place, so
// that pages of zeros, most of a guest's memory, are neither written nor read
// (QEMU, docs/devel/migration/mapped-ram.rst).
var mappedRAM = map[string]any{"capabilities": []map[string]any{{"capability": "mapped-ram", "state": true}}}

// load gives a guest that was started with "-incoming defer" its memory.
func (g *Guest) load(ctx context.Context, path string) error {
	if _, err := g.QMP(ctx, "migrate-set-capabilities", mappedRAM); err != nil {
		return err
	}
	if _, err := g.QMP(ctx, "migrate-incoming", map[string]any{"uri": "file:" + path}); err != nil {
		return err
	}
	for {
		b, err := g.QMP(ctx, "query-status", nil)
		if err != nil {
			return err
		}
		var s struct{ Status string }
		if err := json.Unmarshal(b, &s); err != nil {
			return err
		}
		if s.Status != "inmigrate" { // it was saved while it stood still, and so it stands
			_, err := g.QMP(ctx, "cont", nil)
			return err
		}
		select {
		case <-time.After(50 * time.Millisecond):
		case <-ctx.Done():
			return fmt.Errorf("guest %s: its snapshot did not load: %w", g.Name, ctx.Err())
		}
	}
}

// settled is the layer with the disk and the memory of a guest that has
// booted, with the lab's modules in [ModulesDir].
func (l *Lab) settled() (string, error) {
	image, err := l.image()
	if err != nil {
		return "", err
	}
	modules, err := l.Modules()
	if err != nil {
		return "", err
	}
	return l.layer("settled", key("mapped-ram", image, modules, strings.Join(machine(Options{}), " ")), func(dir string) error {
		ctx, cancel := context.WithTimeout(context.Background(), bootTime)
		defer cancel()
		g, err := l.boot(ctx, Options{Name: "settled"}, drive{filepath.Join(image, "disk.raw"), "raw"})
		if err != nil {
			return err
		}
		defer g.Close()
		if err := g.pushModules(ctx, modules); err != nil {
			return err
		}
		if err := g.do(ctx, "write the guest's caches out", "sync; echo 3 > /proc/sys/vm/drop_caches", nil); err != nil {
			return err
		}
		if err := g.save(ctx, filepath.Join(dir, "memory")); err != nil {
			return err
		}
		return os.Rename(g.disk.path, filepath.Join(dir, "disk.qcow2"))
	})
}

// pushModules installs the lab's modules, and keeps the drivers away that they
// stand for: udev would load them.
func (g *Guest) pushModules(ctx context.Context, modules string) error {
	if err := g.Push(ctx, "/etc/modprobe.d/hostcheck-lab.conf", []byte("blacklist mlx5_core\nblacklist mlx5_ib\nblacklist mana\nblacklist mana_ib\n"), 0o644); err != nil {
		return err
	}
	return filepath.WalkDir(modules, func(p string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		rel, _ := filepath.Rel(modules, p)
		return g.PushFile(ctx, p, filepath.Join(ModulesDir, rel), 0o644)
	})
}

// save stops the guest, writes its memory and devices to a file and ends it.
func (g *Guest) save(ctx context.Context, path string) error {
	if _, err := g.QMP(ctx, "stop", nil); err != nil {
		return err
	}
	for _, c := range []struct {
		command string
		args    map[string]any
	}{
		{"migrate-set-capabilities", mappedRAM},
		{"migrate-set-parameters", map[string]any{"max-bandwidth": 1 << 40}},
		{"migrate", map[string]any{"uri": "file:" + path}},
	} {
		if _, err := g.QMP(ctx, c.command, c.args); err != nil {
			return err
		}
	}
	for {
		b, err := g.QMP(ctx, "query-migrate", nil)
		if err != nil {
			return err
		}
		var s struct {
			Status string
			Desc   string `json:"error-desc"`
		}
		if err := json.Unmarshal(b, &s); err != nil {
			return err
		}
		switch s.Status {
		case "completed":
			g.Cut()
			return nil
		case "failed", "cancelled":
			return fmt.Errorf("cannot save guest %s: %s %s", g.Name, s.Status, s.Desc)
		}
		select {
		case <-time.After(100 * time.Millisecond):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}
