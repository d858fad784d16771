// SPDX-License-Identifier: AGPL-3.0-only

package config

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"

	"github.com/lakerunner/lakerunner/pkg/lake"
)

const hashSize = sha256.Size

// SecretPrefix begins every secret that LakeRunner makes, so that scanners find one that was leaked.
const SecretPrefix = "lr_"

// MinSecret is the least length, in characters, of a secret that people choose.
const MinSecret = 16

// NewSecret makes the secret of an API key: 32 random bytes. Its hash alone is to be kept.
func NewSecret() string {
	var random [32]byte
	// crypto/rand.Read never fails: it ends the process where the system has no randomness.
	_, _ = rand.Read(random[:])
	return SecretPrefix + base64.RawURLEncoding.EncodeToString(random[:])
}

// Hash is what is kept of a secret. A plain SHA-256 will do: secrets are random, so there is nothing to guess.
func Hash(secret string) [hashSize]byte { return sha256.Sum256([]byte(secret)) }

// keyring finds the identity of a secret without telling by its timing how much of it was right: entries are found by a keyed hash
// whose key no caller knows, then compared whole.
type keyring struct {
	key     [hashSize]byte
	entries map[[hashSize]byte]keyEntry
}

type keyEntry struct {
	hash     [hashSize]byte
	identity Identity
}

func newKeyring() keyring {
	k := keyring{entries: map[[hashSize]byte]keyEntry{}}
	_, _ = rand.Read(k.key[:])
	return k
}

// add reports false when another key has the same secret.
func (k *keyring) add(hash [hashSize]byte, identity Identity) bool {
	slot := k.slot(hash)
	if _, taken := k.entries[slot]; taken {
		return false
	}
	k.entries[slot] = keyEntry{hash: hash, identity: identity}
	return true
}

func (k *keyring) find(secret string) (Identity, bool) {
	hash := Hash(secret)
	entry, ok := k.entries[k.slot(hash)]
	same := subtle.ConstantTimeCompare(hash[:], entry.hash[:]) == 1
	return entry.identity, ok && same
}

func (k *keyring) slot(hash [hashSize]byte) [hashSize]byte {
	mac := hmac.New(sha256.New, k.key[:])
	mac.Write(hash[:])
	return [hashSize]byte(mac.Sum(nil))
}

// Authenticate returns whose secret it is. The time it takes says nothing about the secrets that exist.
func (s *Snapshot) Authenticate(secret string) (Identity, bool) {
	if secret == "" {
		return Identity{}, false
	}
	return s.keys.find(secret)
}

// AnonymousKey is the KeyID of requests that have no key and are let in by a trusted header.
const AnonymousKey = "trusted-header"

// Trusted returns the identity of a request without a key that names an organization in X-Scope-OrgID, where that organization's
// configuration trusts the header. It may query and ingest.
func (s *Snapshot) Trusted(header string) (Identity, bool) {
	organization, ok := s.Organization(lake.Organization(header))
	if !ok || !organization.TrustedHeader {
		return Identity{}, false
	}
	return Identity{KeyID: AnonymousKey, Organization: organization.ID, Scopes: []Scope{ScopeQuery, ScopeIngest}}, true
}
