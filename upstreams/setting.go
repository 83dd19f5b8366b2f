package upstreams

import (
	"crypto/tls"
	"errors"
	"strings"

	"github.com/redis/go-redis/v9"
)

// SettingDefect is the setting that an error of Redis is about: the server does not
// let razor in, or not do what it has to. Other errors are returned as they are.
func SettingDefect(err error) error {
	return settingDefect("redis.", "an account with ~* +@read +@connection +info, and +set +@transaction to write", err)
}

// settingDefect is SettingDefect for the server whose settings begin with prefix,
// and which asks for an account with some rights.
func settingDefect(prefix, rights string, err error) error {
	if _, ok := errors.AsType[*tls.CertificateVerificationError](err); ok {
		return Defect{Key: prefix + "tls", Reason: err.Error(), Want: "the authority in " + prefix + "tls.ca, the name in " + prefix + "tls.server_name"}
	}
	if v, ok := errors.AsType[redis.Error](err); ok {
		code, _, _ := strings.Cut(v.Error(), " ")
		switch code {
		case "NOAUTH", "WRONGPASS":
			return Defect{Key: prefix + "password", Reason: err.Error(), Want: prefix + "user and " + prefix + "password of an account there"}
		case "NOPERM":
			return Defect{Key: prefix + "user", Reason: err.Error(), Want: rights}
		case "READONLY":
			return Defect{Key: "redis.sentinel", Reason: err.Error(), Want: "sentinels that know the primary, or +info for the account, which then asks the replica"}
		}
	}
	return err
}
