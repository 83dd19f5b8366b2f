package wire

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"strconv"
	"strings"
)

// The length of a key's secret in bytes: as much as the hash gives (RFC 2104 §3), and no
// more than it takes in as it is.
const (
	minKey = sha256.Size
	maxKey = sha256.BlockSize
)

// Key is a secret that agents and gateways share, under the number that a datagram
// names it by. It prints as its number alone.
type Key struct {
	ID     uint16
	secret string
}

// String is the key's number: the secret is for nobody to read.
func (k Key) String() string { return fmt.Sprintf("key %d", k.ID) }

// GoString is String.
func (k Key) GoString() string { return k.String() }

// Keys are at least one: the first one seals, all of them open.
//
// A new key comes into use in three steps, each of which is done everywhere before the
// next one is begun: it is added as the second, it becomes the first, the old one goes.
type Keys []Key

// ParseKeys reads a file of keys. A line is `id: secret`: a number of 0 to 65535, and 32
// to 64 bytes in hexadecimal or, where that cannot be, in base64 (RFC 4648 §8, §4). From
// a # on it is a comment; empty lines are passed over. The error names each line that is
// wrong and why, and never what stands in it.
//
// Whether others may read the file is for the caller to look at.
func ParseKeys(file string) (Keys, error) {
	var (
		keys Keys
		errs []error
		line int
	)
	for text := range strings.Lines(file) {
		line++
		text, _, _ = strings.Cut(text, "#")
		if text = strings.TrimSpace(text); text == "" {
			continue
		}
		k, err := parseKey(text)
		if err == nil {
			err = keys.clash(k)
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("line %d: %w", line, err))
			continue
		}
		keys = append(keys, k)
	}
	if errs == nil && keys == nil {
		return nil, errors.New(`no key; want lines of "id: secret"`)
	}
	if errs != nil {
		return nil, errors.Join(errs...)
	}
	return keys, nil
}

func parseKey(line string) (Key, error) {
	number, text, ok := strings.Cut(line, ":")
	if !ok {
		return Key{}, errors.New(`no colon; want "id: secret"`)
	}
	id, err := strconv.ParseUint(strings.TrimSpace(number), 10, 16)
	if err != nil {
		return Key{}, errors.New("bad id: want a number of 0 to 65535")
	}
	text = strings.TrimSpace(text)
	secret, err := hex.DecodeString(text)
	if err != nil {
		secret, err = base64.StdEncoding.DecodeString(text)
	}
	if err != nil {
		return Key{}, fmt.Errorf("key %d is neither hexadecimal nor base64", id)
	}
	if n := len(secret); n < minKey || n > maxKey {
		return Key{}, fmt.Errorf("key %d has %d bytes: want %d to %d, as of openssl rand -hex %d", id, n, minKey, maxKey, minKey)
	}
	return Key{uint16(id), string(secret)}, nil
}

// clash is an error where a key has the number or the secret of another one.
func (keys Keys) clash(k Key) error {
	for _, other := range keys {
		switch {
		case other.ID == k.ID:
			return fmt.Errorf("key %d is there twice", k.ID)
		case other.secret == k.secret:
			return fmt.Errorf("key %d has the secret of key %d", k.ID, other.ID)
		}
	}
	return nil
}
