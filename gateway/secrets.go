package gateway

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"

	"github.com/razor-steering/razor/steering"
	"github.com/razor-steering/razor/steering/wire"
	"github.com/razor-steering/razor/upstreams"
)

// flowKey is the secret that the keys of the services' flow hashes are made of.
func (c *DataplaneConfig) flowKey() ([]byte, error) {
	const name = "flow_key_file"
	text, err := secret(name, c.FlowKeyFile)
	if err != nil {
		return nil, err
	}
	key, err := hex.DecodeString(strings.TrimSpace(text))
	if err != nil || len(key) < leastFlowKey {
		return nil, secretDefect(name, c.FlowKeyFile, "not a key", "32 or more hexadecimal digits (openssl rand -hex 16)")
	}
	return key, nil
}

// keys are what agents seal their datagrams with, none without a file.
func (c *DataplaneConfig) keys() (wire.Keys, error) {
	const name = "key_file"
	if c.KeyFile == "" {
		return nil, nil
	}
	text, err := secret(name, c.KeyFile)
	if err != nil {
		return nil, err
	}
	keys, err := wire.ParseKeys(text)
	if err != nil {
		return nil, secretDefect(name, c.KeyFile, err.Error(), `lines of "id: secret"`)
	}
	return keys, nil
}

// secret reads a file that nobody else may read.
func secret(name, file string) (string, error) {
	info, err := os.Stat(file)
	if err != nil {
		return "", secretDefect(name, file, reason(err), "a file that can be read")
	}
	if info.Mode().Perm()&0o077 != 0 {
		return "", secretDefect(name, file, fmt.Sprintf("others may read it (mode %#o)", info.Mode().Perm()), "mode 0600")
	}
	text, err := os.ReadFile(file)
	if err != nil {
		return "", secretDefect(name, file, reason(err), "a file that can be read")
	}
	return string(text), nil
}

func secretDefect(name, file, reason, want string) error {
	return upstreams.Defect{Key: "gateway.dataplane." + name, Member: file, Reason: reason, Want: want}
}

// reason is what is wrong with a file, without its name.
func reason(err error) string {
	if p, ok := errors.AsType[*fs.PathError](err); ok {
		return p.Err.Error()
	}
	return err.Error()
}

// keyOf is the hash key of a service: of the shared secret and its name, so that no
// service tells anything of another's.
func keyOf(secret []byte, service string) steering.FlowKey {
	m := hmac.New(sha256.New, secret)
	m.Write([]byte("flow hash of " + service))
	sum := m.Sum(nil)
	return steering.FlowKey{binary.BigEndian.Uint64(sum), binary.BigEndian.Uint64(sum[8:])}
}
