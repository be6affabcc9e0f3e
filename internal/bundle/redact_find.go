// SPDX-License-Identifier: Apache-2.0

package bundle

import (
	"cmp"
	"encoding/hex"
	"net/netip"
	"path"
	"regexp"
	"slices"
	"strings"

	"github.com/hostcheck/hostcheck/internal/host"
	"github.com/hostcheck/hostcheck/internal/pattern"
)

// kindOf is what is replaced.
type kindOf string

const (
	macKind    kindOf = "mac"  // value: 12 hex digits
	guidKind   kindOf = "guid" // 16 hex digits
	ipKind     kindOf = "ip"   // as netip writes it
	uuidKind   kindOf = "uuid" // 32 hex digits
	hostKind   kindOf = "host"
	userKind   kindOf = "user"
	secretKind kindOf = "secret"
	idKind     kindOf = "id" // serial numbers, identifiers of clouds, disks and ports
	textKind   kindOf = "text"
)

var kindOrder = []kindOf{macKind, guidKind, ipKind, uuidKind, hostKind, userKind, secretKind, idKind, textKind} // GUIDs come after the MACs that are in them

// where a text stands, which may say what it is.
type where struct {
	path  string
	key   string // of a recorded answer
	name  bool   // it is a path or name itself
	fixed bool   // nothing may move
}

// span is a part of a text that is replaced.
type span struct {
	start, end int
	kind       kindOf
	value      string
	spell      func(pseudonym string) string
}

// word is a name that is known from a file that says it.
type word struct {
	kind  kindOf
	text  string // lower case, as it may be spelt
	value string
	spell func(string) string
}

// Words that are never names of a host or user of somebody's.
var common = []string{
	"localhost", "localdomain", "local", "host", "root", "admin", "node", "linux", "debian", "ubuntu", "rhel", "suse", "fedora", "server", "daemon", "bin", "sys", "nobody",
	"kubelet", "systemd", "user", "users", "all", "none", "default", "unlimited", "group", "wheel", "slurm", "oracle", "postgres",
}

// learnVocabulary takes the words of the kernel's own paths: a host that is
// called like one of them cannot be told from it.
func (r *Redactor) learnVocabulary(s *host.Snapshot) {
	for _, w := range common {
		r.vocab[w] = true
	}
	add := func(p string) {
		if !strings.HasPrefix(p, "/sys/") && !strings.HasPrefix(p, "/proc/") {
			return
		}
		for _, part := range strings.FieldsFunc(p, func(c rune) bool { return c == '/' || c == '.' || c == ':' }) {
			r.vocab[strings.ToLower(part)] = true
			for _, w := range strings.FieldsFunc(part, func(c rune) bool { return c == '_' || c == '-' }) {
				r.vocab[strings.ToLower(w)] = true
			}
		}
	}
	for p := range s.Files {
		add(p)
	}
	for p := range s.Exact.Failed {
		_, p, _ := strings.Cut(string(p), " ")
		add(p)
	}
}

var hostFiles = []string{"/proc/sys/kernel/hostname", "/etc/hostname"}

var (
	userLine = pattern.Late(`(?m)^[ \t]*(?:User|Group)[ \t]*=[ \t]*([^\s#]+)`)
	homeDir  = pattern.Late(`/home/([^/\s:"']+)`)
	limits   = pattern.Late(`(?m)^[ \t]*[@%]?([A-Za-z_][\w.-]*)[ \t]+(?:soft|hard|-)[ \t]`)
	override = pattern.Late(`hostname-?[oO]verride["']?[ \t]*[=:\x00 ][ \t]*["']?([\w.-]+)`)
	urlHost  = pattern.Late(`[a-z][a-z0-9+.-]*://(?:[^/\s@"']*@)?([A-Za-z0-9][\w.-]*[A-Za-z])(?:[:/\s"'?]|$)`)
)

// learnNames takes the names of the host and of users from where they are told.
func (r *Redactor) learnNames(s *host.Snapshot) {
	add := func(kind kindOf, name string) {
		name = strings.ToLower(strings.TrimRight(strings.TrimSpace(name), "."))
		if len(name) < 3 || r.vocab[name] || strings.Trim(name, "0123456789.-") == "" {
			return
		}
		r.words = append(r.words, word{kind, name, name, nil})
		for _, v := range []struct{ from, to string }{{"-", "--"}, {"-", `\x2d`}, {".", "-"}, {".", "_"}, {"-", "_"}} { // LVM, systemd, file names
			if other := strings.ReplaceAll(name, v.from, v.to); other != name {
				r.words = append(r.words, word{kind, other, name, func(p string) string { return strings.ReplaceAll(p, v.from, v.to) }})
			}
		}
	}
	hostName := func(name string) {
		add(hostKind, name)
		short, domain, ok := strings.Cut(strings.TrimSpace(name), ".")
		if ok {
			add(hostKind, short)
			if strings.Contains(domain, ".") {
				add(hostKind, domain)
			}
		}
	}
	for p, data := range s.Files {
		text := string(data)
		if slices.Contains(hostFiles, p) {
			hostName(text)
		}
		for _, m := range override().FindAllStringSubmatch(text, -1) {
			hostName(m[1])
		}
		if p == "/etc/hosts" {
			for line := range strings.Lines(text) {
				line, _, _ = strings.Cut(line, "#")
				for i, w := range strings.Fields(line) {
					if i > 0 && !strings.HasPrefix(w, "ip6-") {
						hostName(w)
					}
				}
			}
		}
		if !strings.HasPrefix(p, "/usr/") && !strings.HasPrefix(p, "/lib/") && p != "/etc/os-release" { // a distribution's own
			for _, m := range urlHost().FindAllStringSubmatch(text, -1) {
				hostName(m[1])
			}
		}
		for _, m := range homeDir().FindAllStringSubmatch(text, -1) {
			add(userKind, m[1])
		}
		if strings.HasPrefix(p, "/etc/security/limits") {
			for _, m := range limits().FindAllStringSubmatch(text, -1) {
				add(userKind, m[1])
			}
		}
		if strings.HasPrefix(p, "/etc/") {
			for _, m := range userLine().FindAllStringSubmatch(text, -1) {
				add(userKind, m[1])
			}
		}
	}
	slices.SortFunc(r.words, func(a, b word) int {
		return cmp.Or(cmp.Compare(len(b.text), len(a.text)), cmp.Compare(a.text, b.text), cmp.Compare(a.kind, b.kind))
	})
	r.words = slices.CompactFunc(r.words, func(a, b word) bool { return a.text == b.text })
}

const (
	secretWords = `(?:passw(?:or)?d|passphrase|secret|token|api_?key|credentials?|private_?key|access_?key|psk|cookie|auth_?key|(?:luks|wireguard|ssh|host|shared|disk|crypt|enc|master)[\w.-]*key|[_.-]key|\bkey)`
	secretValue = `("[^"\n]*"|'[^'\n]*'|[^\s\x00"',;]+)`
)

const hexDigits = "0123456789abcdefABCDEF"

var (
	uuidForm  = pattern.Late(`[0-9a-fA-F]{8}(?:-|\\x2d)[0-9a-fA-F]{4}(?:-|\\x2d)[0-9a-fA-F]{4}(?:-|\\x2d)[0-9a-fA-F]{4}(?:-|\\x2d)[0-9a-fA-F]{12}`)
	octets    = pattern.Late(`[0-9a-fA-F]{2}(?:(?::|-|\\x3a)[0-9a-fA-F]{2}){5,19}`)
	guid4     = pattern.Late(`[0-9a-fA-F]{4}(?::[0-9a-fA-F]{4}){3}`)
	ip6Form   = pattern.Late(`[0-9a-fA-F]*:[0-9a-fA-F]*:[0-9a-fA-F:]*(?:\d+\.\d+\.\d+\.\d+)?`)
	ip4Form   = pattern.Late(`\d{1,3}(?:[.-]\d{1,3}){3}`)
	bareMAC   = pattern.Late(`(?:enx|mac|wlx)[0-9a-fA-F]{12}`)
	hex32     = pattern.Late(`[0-9a-fA-F]{32}`)
	hexLong   = pattern.Late(`[0-9a-fA-F]{12,16}`)
	hexRow    = pattern.Late(`[0-9A-Fa-f]{32}|[0-9A-F]{8}`)
	secretKey = pattern.Late(`(?i)["']?[\w.-]*` + secretWords + `["']?(?:[ \t]*[=:][ \t]*|\x00)` + secretValue)
	secretArg = pattern.Late(`(?i)--[\w-]*` + secretWords + `[ \t]+` + secretValue)
	pem       = pattern.Late(`(?s)-----BEGIN [A-Z ]+-----.*?-----END [A-Z ]+-----`)
	tokens    = pattern.Late(`eyJ[\w-]{8,}\.[\w-]+\.[\w-]*|A[KS]IA[0-9A-Z]{16}|gh[pousr]_\w{20,}|grub\.pbkdf2\.[\w.]+|ssh-(?:rsa|ed25519|dss) AAAA[\w+/=]+|(?i:bearer|basic) ([\w.+/=~-]{8,})`)
	userInfo  = pattern.Late(`://([^/\s@"']+)@`)
	cloudID   = pattern.Late(`\bi-[0-9a-f]{8,17}\b|\bocid1\.[\w.-]+|\barn:aws[\w-]*:[^\s"',]+|\b(?:vpc|subnet|eni|ami|vol)-[0-9a-f]{8,17}\b|\bprojects/[\w.:-]+|/subscriptions/[\w-]+|\binstance-\d{10,}\b`)
	email     = pattern.Late(`[\w.+%-]+@[\w-]+(?:\.[\w-]+)*\.([A-Za-z]{2,})`)
	diskID    = pattern.Late(`(?:PARTUUID|UUID)=["']?([0-9A-Za-z-]{4,})|by-id/([\w.:-]{8,})|(?:wwn-0x|\beui\.)([0-9a-f]{16})|\biqn\.\d{4}-\d{2}\.[^\s,;"']+`)
	serial    = pattern.Late(`(?i)(?:serial|asset)[ _-]?(?:number|no|tag)?["']?[ \t]*[=:][ \t]*["']?([\w.-]*\d[\w.-]*)`)
	label     = pattern.Late(`(?:PARTLABEL|LABEL)=["']?([^\s"']+)`)
	comment   = pattern.Late(`(?m)^[ \t]*[#;](.+)$`)
	version   = pattern.Late(`(?i)version|firmware|fw_ver|release`)
)

// constants are the same everywhere: GUIDs of EFI variables, types of VMBus
// devices and of partitions.
var constants = []string{
	"4a67b0820a4c41cfb6c7440b29bb8c4f", "8be4df6193ca11d2aa0d00e098032b8c", "605dab50e0464300abb63dd810dd8b23", "d719b2cb3d3a4596a3bcdad00e67656f",
	"f8615163df3e46c5913ff2d2f965ed0e", "44c4f61d444444009d52802e27ede19f", "c12a7328f81f11d2ba4b00a0c93ec93b",
}

// spans finds what is to be replaced, in order, without overlaps.
func (r *Redactor) spans(text []byte, w where) []span {
	if len(text) == 0 {
		return nil
	}
	s := string(text)
	var all []span
	add := func(start, end int, kind kindOf, value string, spell func(string) string) {
		if value == "" || start >= end {
			return
		}
		all = append(all, span{start, end, kind, value, spell})
	}
	group := func(re *regexp.Regexp, kind kindOf) {
		for _, m := range re.FindAllStringSubmatchIndex(s, -1) {
			from, to := m[0], m[1]
			for g := 2; g+1 < len(m); g += 2 {
				if m[g] >= 0 {
					from, to = m[g], m[g+1]
				}
			}
			if v := s[from:to]; !replaced(v) && (re != diskID() || uuidForm().FindString(v) != v) {
				add(from, to, kind, v, nil)
			}
		}
	}
	wholes := func(kind kindOf) {
		v := strings.TrimSpace(s)
		if at := strings.Index(s, v); v != "" && !r.trivial(v) {
			add(at, at+len(v), kind, v, nil)
		}
	}
	kernel := strings.HasPrefix(w.path, "/sys/") || strings.HasPrefix(w.path, "/proc/")
	base := path.Base(w.path)
	if !w.name && !bulky(w) {
		switch {
		case slices.Contains(hostFiles, w.path):
			if v := strings.TrimSpace(s); v != "" && v != "localhost" && v != "(none)" {
				at := strings.Index(s, v)
				add(at, at+len(v), hostKind, strings.ToLower(v), nil)
			}
		case strings.HasPrefix(w.path, "/sys/") && strings.Contains(w.path, "/dmi/") && (strings.Contains(base, "serial") || strings.Contains(base, "asset_tag") && !strings.HasPrefix(s, "7783-7084-3265-9085-8269-3286-77")),
			kernel && (base == "phys_switch_id" || base == "phys_port_id" || base == "serial" || base == "serial_number" || base == "unique_id"):
			wholes(idKind)
		}
		group(pem(), secretKind)
		group(userInfo(), secretKind)
		group(secretKey(), secretKind)
		group(secretArg(), secretKind)
		group(tokens(), secretKind)
		group(serial(), idKind)
		group(diskID(), idKind)
		for _, m := range email().FindAllStringSubmatchIndex(s, -1) {
			if !slices.Contains(unitSuffixes, s[m[2]:m[3]]) {
				add(m[0], m[1], userKind, strings.ToLower(s[m[0]:m[1]]), nil)
			}
		}
		if r.level == Strict {
			group(label(), idKind)
			if strings.HasPrefix(w.path, "/etc/") {
				for _, m := range comment().FindAllStringSubmatchIndex(s, -1) {
					if !strings.Contains(strings.ToLower(s[m[2]:m[3]]), "hostcheck") {
						add(m[2], m[3], textKind, s[m[2]:m[3]], func(string) string { return "" })
					}
				}
			}
		}
	}
	if !bulky(w) {
		group(cloudID(), idKind)
		r.findHex(s, w, add)
	}
	if versioned := version().MatchString(w.key) || version().MatchString(base) && strings.Count(s, "\n") <= 1; (!versioned || w.name) && !bulky(w) {
		r.findIPs(s, add)
	}
	r.findWords(s, add)
	slices.SortStableFunc(all, func(a, b span) int { return cmp.Or(cmp.Compare(a.start, b.start), cmp.Compare(b.end, a.end)) })
	out := all[:0]
	end := 0
	for _, f := range all {
		if f.start >= end {
			out = append(out, f)
			end = f.end
		}
	}
	return out
}

// bulky reports whether a file says how a kernel was built: large, and the
// distribution's. Only known names are looked for in it.
func bulky(w where) bool {
	return !w.name && (strings.HasPrefix(w.path, "/boot/config-") || strings.HasPrefix(w.path, "/lib/modules/") || strings.HasPrefix(w.path, "/usr/lib/modules/"))
}

var unitSuffixes = []string{"service", "socket", "mount", "target", "slice", "scope", "device", "timer", "path", "conf", "swap", "automount", "d", "so", "ko"}

// replaced reports whether a value is a pseudonym already, or none at all.
func replaced(v string) bool {
	v = strings.Trim(v, `"'`)
	return v == "" || strings.HasPrefix(v, "secret-") || strings.HasPrefix(v, "$")
}

// trivial reports whether a text identifies nothing.
func (r *Redactor) trivial(v string) bool {
	l := strings.ToLower(v)
	return strings.Trim(l, "0") == "" || slices.Contains([]string{"none", "unknown", "not specified", "default string", "to be filled by o.e.m.", "system serial number"}, l)
}

// alone reports whether nothing beside a part of a text makes it part of
// something longer of the same letters.
func alone(s string, from, to int, letters string) bool {
	return (from == 0 || !strings.ContainsRune(letters, rune(s[from-1]))) && (to == len(s) || !strings.ContainsRune(letters, rune(s[to])))
}

const alnum = "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"

type adder func(start, end int, kind kindOf, value string, spell func(string) string)

func (r *Redactor) findHex(s string, w where, add adder) {
	for _, m := range uuidForm().FindAllStringIndex(s, -1) {
		text := s[m[0]:m[1]]
		v := strings.ToLower(strings.NewReplacer("-", "", `\x2d`, "").Replace(text))
		if alone(s, m[0], m[1], hexDigits) && !slices.Contains(constants, v) && strings.Trim(v, "0") != "" {
			add(m[0], m[1], uuidKind, v, func(p string) string { return like(text, p) })
		}
	}
	for _, m := range octets().FindAllStringIndex(s, -1) {
		text := s[m[0]:m[1]]
		v := strings.ToLower(strings.NewReplacer(":", "", "-", "", `\x3a`, "").Replace(text))
		if !alone(s, m[0], m[1], alnum+":") || strings.Trim(v, "0") == "" || strings.Trim(v, "f") == "" {
			continue
		}
		switch len(v) {
		case 12:
			add(m[0], m[1], macKind, v, func(p string) string { return like(text, p) })
		case 16:
			add(m[0], m[1], guidKind, v, func(p string) string { return like(text, p) })
		case 40: // InfiniBand: flags, queue pair, prefix of the subnet, GUID
			at := m[1] - len("00:00:00:00:00:00:00:00")
			tail := s[at:m[1]]
			add(at, m[1], guidKind, v[24:], func(p string) string { return like(tail, p) })
		}
	}
	for _, m := range guid4().FindAllStringIndex(s, -1) {
		text := s[m[0]:m[1]]
		v := strings.ToLower(strings.ReplaceAll(text, ":", ""))
		if alone(s, m[0], m[1], alnum+":") && strings.Trim(v, "0") != "" {
			add(m[0], m[1], guidKind, v, func(p string) string { return like(text, p) })
		}
	}
	for _, m := range bareMAC().FindAllStringIndex(s, -1) {
		if from := m[0] + 3; alone(s, m[0], m[1], alnum) {
			text := s[from:m[1]]
			add(from, m[1], macKind, strings.ToLower(text), func(p string) string { return like(text, p) })
		}
	}
	inNet := strings.Contains(w.path, "/net/") && strings.HasPrefix(w.path, "/proc/") && !w.name && !strings.HasPrefix(w.path, "/proc/sys/")
	if inNet {
		r.findHexRows(s, w, add)
		return
	}
	for _, m := range hex32().FindAllStringIndex(s, -1) {
		text := s[m[0]:m[1]]
		if v := strings.ToLower(text); alone(s, m[0], m[1], alnum) && !slices.Contains(constants, v) && strings.Trim(v, "0123456789") != "" {
			add(m[0], m[1], uuidKind, v, func(p string) string { return like(text, p) })
		}
	}
	if len(r.found[macKind]) == 0 && len(r.found[guidKind]) == 0 {
		return
	}
	for _, m := range hexLong().FindAllStringIndex(s, -1) { // without separators, where it is known with them
		text := s[m[0]:m[1]]
		v := strings.ToLower(text)
		kind := macKind
		if len(v) == 16 {
			kind = guidKind
		}
		if _, known := r.found[kind][v]; known && alone(s, m[0], m[1], hexDigits) {
			add(m[0], m[1], kind, v, func(p string) string { return like(text, p) })
		}
	}
}

// findHexRows finds addresses in the kernel's tables: IPv4 as one number in the
// byte order of the machine, which is little, IPv6 as 32 digits (in tables of
// sockets as four such numbers).
func (r *Redactor) findHexRows(s string, w where, add adder) {
	base := path.Base(w.path)
	sockets := strings.HasPrefix(base, "tcp") || strings.HasPrefix(base, "udp") || strings.HasPrefix(base, "raw")
	at := 0
	for line := range strings.Lines(s) {
		for _, m := range hexRow().FindAllStringIndex(line, -1) {
			text := line[m[0]:m[1]]
			if !alone(line, m[0], m[1], alnum) {
				continue
			}
			b, err := hex.DecodeString(text)
			if err != nil {
				continue
			}
			column := len(strings.Fields(line[:m[0]]))
			swap := len(b) == 4 || sockets
			switch {
			case sockets && column != 1 && column != 2, len(b) == 4 && base == "route" && column != 1 && column != 2:
				continue
			case len(b) == 4 && base != "route" && !sockets:
				continue
			}
			if swap {
				reverse4(b)
			}
			ip, _ := netip.AddrFromSlice(b)
			if keepIP(ip) {
				continue
			}
			add(at+m[0], at+m[1], ipKind, ip.String(), func(p string) string {
				q, err := netip.ParseAddr(p)
				if err != nil {
					return strings.Repeat("0", len(text))
				}
				b := q.AsSlice()
				if swap {
					reverse4(b)
				}
				return like(text, hex.EncodeToString(b))
			})
		}
		at += len(line)
	}
}

func reverse4(b []byte) {
	for i := 0; i+4 <= len(b); i += 4 {
		slices.Reverse(b[i : i+4])
	}
}

func (r *Redactor) findIPs(s string, add adder) {
	for _, m := range ip6Form().FindAllStringIndex(s, -1) {
		from, to := m[0], m[1]
		for to > from && s[to-1] == ':' && !strings.HasSuffix(s[from:to], "::") {
			to--
		}
		text := s[from:to]
		ip, err := netip.ParseAddr(text)
		if err != nil || keepIP(ip) || !alone(s, from, to, alnum+"_") || strings.HasPrefix(s[to:], ".") && len(s) > to+1 && strings.ContainsRune(alnum, rune(s[to+1])) {
			continue
		}
		add(from, to, ipKind, ip.String(), func(p string) string { return likeIP6(text, p) })
	}
	for _, m := range ip4Form().FindAllStringIndex(s, -1) {
		text := s[m[0]:m[1]]
		dashed := strings.Contains(text, "-")
		if dashed && (strings.Contains(text, ".") || !strings.HasSuffix(s[:m[0]], "ip-")) { // ip-10-0-0-1, as clouds call hosts
			continue
		}
		ip, err := netip.ParseAddr(strings.ReplaceAll(text, "-", "."))
		rest := s[m[1]:]
		longer := len(rest) > 1 && rest[0] == '.' && strings.ContainsRune(alnum, rune(rest[1])) && !dashed
		if err != nil || keepIP(ip) || longer || !alone(s, m[0], m[1], alnum+"_") || strings.HasSuffix(s[:m[0]], ".") {
			continue
		}
		add(m[0], m[1], ipKind, ip.String(), func(p string) string {
			if dashed {
				return strings.ReplaceAll(p, ".", "-")
			}
			return p
		})
	}
}

func (r *Redactor) findWords(s string, add adder) {
	if len(r.words) == 0 {
		return
	}
	low := strings.ToLower(s)
	if len(low) != len(s) {
		low = s // letters whose case has another length: as they are
	}
	for _, k := range r.words {
		for at := 0; ; {
			i := strings.Index(low[at:], k.text)
			if i < 0 {
				break
			}
			from, to := at+i, at+i+len(k.text)
			at = to
			if !alone(low, from, to, alnum) {
				continue
			}
			add(from, to, k.kind, k.value, k.spell)
		}
	}
}

// like writes the digits of p in the shape of text: its separators and case.
func like(text, p string) string {
	var b strings.Builder
	upper := strings.ToUpper(text) == text && strings.ToLower(text) != text
	if upper {
		p = strings.ToUpper(p)
	}
	n := 0
	for i := 0; i < len(text); i++ {
		switch {
		case strings.HasPrefix(text[i:], `\x`) && i+4 <= len(text):
			b.WriteString(text[i : i+4])
			i += 3
		case strings.IndexByte(hexDigits, text[i]) >= 0 && n < len(p):
			b.WriteByte(p[n])
			n++
		default:
			b.WriteByte(text[i])
		}
	}
	return b.String()
}

// likeIP6 writes an address in full where text is in full, as GIDs are.
func likeIP6(text, p string) string {
	ip, err := netip.ParseAddr(p)
	if err != nil || len(text) != 39 || strings.Contains(text, ".") {
		return p
	}
	return ip.StringExpanded()
}
