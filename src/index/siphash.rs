//! The keyed hash of digests and paths: SipHash-2-4 with 128 bits of output.
//!
//! The hash is keyed, so that users who choose names and sizes cannot make two states of a
//! directory look equal. The standard library's hasher has 64 bits, and its algorithm may change.

use siphasher::sip128::SipHasher24;

/// A secret key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HashKey(pub [u8; 16]);

impl HashKey {
    /// Returns a random key.
    pub fn random() -> HashKey {
        use std::hash::{BuildHasher, RandomState};
        // Each state has keys of its own that come from the system's random numbers.
        let half = |seed: u8| RandomState::new().hash_one(seed).to_le_bytes();
        let mut key = [0; 16];
        key[..8].copy_from_slice(&half(0));
        key[8..].copy_from_slice(&half(1));
        HashKey(key)
    }

    /// Returns the hash of these bytes.
    pub fn hash(&self, bytes: &[u8]) -> u128 {
        SipHasher24::new_with_key(&self.0).hash(bytes).as_u128()
    }

    /// Returns a hasher for bytes that come in parts.
    pub fn hasher(&self) -> SipHasher24 {
        SipHasher24::new_with_key(&self.0)
    }

    /// Returns the hash of a path.
    pub fn path(&self, path: &[u8]) -> u64 {
        self.hash(path) as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The first vectors of the reference implementation.
    #[test]
    fn hashes_are_those_of_the_reference() {
        let key = HashKey(std::array::from_fn(|at| at as u8));
        let vectors: [(&[u8], [u8; 16]); 2] = [
            (
                &[],
                [
                    0xa3, 0x81, 0x7f, 0x04, 0xba, 0x25, 0xa8, 0xe6, 0x6d, 0xf6, 0x72, 0x14, 0xc7,
                    0x55, 0x02, 0x93,
                ],
            ),
            (
                &[0],
                [
                    0xda, 0x87, 0xc1, 0xd8, 0x6b, 0x99, 0xaf, 0x44, 0x34, 0x76, 0x59, 0x11, 0x9b,
                    0x22, 0xfc, 0x45,
                ],
            ),
        ];
        for (bytes, expected) in vectors {
            assert_eq!(key.hash(bytes).to_le_bytes(), expected, "{bytes:?}");
        }
    }

    #[test]
    fn keys_and_lengths_count() {
        let (one, other) = (HashKey::random(), HashKey::random());
        assert_ne!(one, other);
        assert_ne!(one.hash(b"a"), other.hash(b"a"));
        assert_ne!(one.hash(b"a"), one.hash(b"a\0"));
        assert_ne!(one.hash(&[0; 8]), one.hash(&[0; 16]));
    }

    /// Otherwise other users can choose names of equal hash.
    #[test]
    fn the_hash_of_a_path_depends_on_the_key() {
        let [one, other] = [1, 2].map(|byte| HashKey([byte; 16]).path(b"/d/"));
        assert_ne!(one, other);
    }
}
