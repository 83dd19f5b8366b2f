package upstreams

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
)

// SnapshotFile is the last good snapshot in the state directory. It is a stream
// of Redis commands, so that `redis-cli --pipe < snapshot.resp` puts the lists
// back into an emptied Redis. Its last command is ECHO with the SHA-256 of all
// that stands before it.
const SnapshotFile = "snapshot.resp"

// saddMembers bounds the members of one SADD. Who refills Redis from the file puts
// lists back whole up to it: followers see no half of them.
const saddMembers = 100_000

var errTruncated = errors.New("truncated or changed: checksum does not match")

// save writes the values, replacing the file as a whole: a reader finds the old
// content or the new.
func save(dir string, values map[keyID]*value) (err error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	tmp, err := os.CreateTemp(dir, SnapshotFile+".*")
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			_ = tmp.Close()
			_ = os.Remove(tmp.Name())
		}
	}()
	if err := writeCommands(tmp, values); err != nil {
		return err
	}
	if err := tmp.Sync(); err != nil {
		return err
	}
	if err := tmp.Close(); err != nil {
		return err
	}
	if err := os.Rename(tmp.Name(), filepath.Join(dir, SnapshotFile)); err != nil {
		return err
	}
	return syncDir(dir)
}

// ReplaceFile has a file be a text, or what it was, also when the power fails meanwhile.
// One writer has it at a time.
func ReplaceFile(name string, text []byte, mode fs.FileMode) (err error) {
	next := name + ".new"
	f, err := os.OpenFile(next, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, mode)
	if err != nil {
		return err
	}
	if _, err = f.Write(text); err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err == nil {
		err = os.Rename(next, name)
	}
	if err != nil {
		return errors.Join(err, os.Remove(next))
	}
	return syncDir(filepath.Dir(name))
}

// syncDir has the names in a directory be on disk.
func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}

func writeCommands(w io.Writer, values map[keyID]*value) error {
	sum := sha256.New()
	buf := bufio.NewWriterSize(io.MultiWriter(w, sum), 256<<10)
	for id, v := range values {
		if err := writeValue(buf, id, v); err != nil {
			return err
		}
	}
	if err := buf.Flush(); err != nil {
		return err
	}
	_, err := w.Write(appendCommand(nil, "ECHO", hex.EncodeToString(sum.Sum(nil))))
	return err
}

func writeValue(w io.Writer, id keyID, v *value) error {
	key := id.spelling()
	var members []string
	switch id.kind {
	case kindConfig:
		return writeHash(w, key, v.config.fields)
	case kindMeta:
		return writeHash(w, key, v.meta.fields)
	case kindState:
		_, err := w.Write(appendCommand(nil, "SET", key, stateText(v.state, v.since)))
		return err
	case kindHealth:
		_, err := w.Write(appendCommand(nil, "SET", key, v.said.String()))
		return err
	case kindGeo, kindSticky, kindSubnet:
		_, err := w.Write(appendCommand(nil, "SET", key, NameText(v.route)))
		return err
	case kindGroups:
		members = v.groups.Names()
	case kindUpstream:
		for _, e := range v.list {
			members = append(members, e.String())
		}
	case kindEdges:
		for _, e := range v.edges {
			members = append(members, NameText(e))
		}
	case kindPool:
		members = memberTexts(v.pool.Members(), v.pool.Len())
	case kindBlackhole:
		members = blackholeTexts(v.blackholes)
	case kindSkip:
		members = memberTexts(v.skip.Entries(), v.skip.Len())
	}
	for chunk := range slices.Chunk(members, saddMembers) {
		if _, err := w.Write(appendCommand(nil, append([]string{"SADD", key}, chunk...)...)); err != nil {
			return err
		}
	}
	return nil
}

func writeHash(w io.Writer, key string, fields map[string]string) error {
	cmd := []string{"HSET", key}
	for _, f := range slices.Sorted(maps.Keys(fields)) {
		cmd = append(cmd, f, fields[f])
	}
	_, err := w.Write(appendCommand(nil, cmd...))
	return err
}

func memberTexts(members func(func(netip.Prefix) bool), n int) []string {
	out := make([]string, 0, n)
	for m := range members {
		out = append(out, MemberText(m))
	}
	return out
}

// load reads what save wrote. A file that is missing is fs.ErrNotExist; one that
// was cut off or changed gives nothing at all.
func load(dir string) (map[keyID]*value, error) {
	return loadFile(filepath.Join(dir, SnapshotFile))
}

func loadFile(path string) (map[keyID]*value, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	values, err := parseCommands(data)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return values, nil
}

func parseCommands(data []byte) (map[keyID]*value, error) {
	trailer := len(appendCommand(nil, "ECHO", string(make([]byte, hex.EncodedLen(sha256.Size)))))
	if len(data) < trailer {
		return nil, errTruncated
	}
	body := data[:len(data)-trailer]
	sum := sha256.Sum256(body)
	if !bytes.Equal(data[len(body):], appendCommand(nil, "ECHO", hex.EncodeToString(sum[:]))) {
		return nil, errTruncated
	}
	raws := map[string]raw{}
	for r := bufio.NewReaderSize(bytes.NewReader(body), 64<<10); ; {
		v, err := readRESP(r)
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, err
		}
		if err := collect(raws, v); err != nil {
			return nil, err
		}
	}
	values := make(map[keyID]*value, len(raws))
	for key, raw := range raws {
		id, _ := parseKey(key)
		if id.kind == kindForeign {
			return nil, fmt.Errorf("%s: unknown key", Printable(key))
		}
		if v, _ := parseValue(id, key, raw); v != nil {
			values[id] = v
		}
	}
	return values, nil
}

// collect applies one command of the file.
func collect(raws map[string]raw, command any) error {
	list, _ := command.([]any)
	args := make([]string, len(list))
	for i, a := range list {
		args[i], _ = a.(string)
	}
	if len(args) < 3 {
		return errRESP
	}
	r := raws[args[1]]
	r.exists = true
	switch args[0] {
	case "SET":
		r.text = args[2]
	case "SADD":
		r.set = append(r.set, args[2:]...)
	case "HSET":
		if r.hash = map[string]string{}; len(args)%2 != 0 {
			return errRESP
		}
		for i := 2; i < len(args); i += 2 {
			r.hash[args[i]] = args[i+1]
		}
	default:
		return fmt.Errorf("%w: command %s", errRESP, Printable(args[0]))
	}
	raws[args[1]] = r
	return nil
}
