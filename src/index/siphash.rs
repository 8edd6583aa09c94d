//! SipHash-2-4 with 128 bits of output, by Aumasson and Bernstein.
//!
//! The hash is keyed, so that users who choose names and sizes cannot make two states of a
//! directory look equal. The standard library's hasher has 64 bits, and its algorithm may change.

/// A secret key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Key(pub [u8; 16]);

impl Key {
    /// Returns a random key.
    pub fn random() -> Key {
        use std::hash::{BuildHasher, RandomState};
        // Each state has keys of its own that come from the system's random numbers.
        let half = |seed: u8| RandomState::new().hash_one(seed).to_le_bytes();
        let mut key = [0; 16];
        key[..8].copy_from_slice(&half(0));
        key[8..].copy_from_slice(&half(1));
        Key(key)
    }

    /// Returns the hash of these bytes.
    pub fn hash(&self, bytes: &[u8]) -> u128 {
        let mut state = State::new(word(&self.0[..8]), word(&self.0[8..]));
        let mut words = bytes.chunks_exact(8);
        for chunk in &mut words {
            state.add(word(chunk));
        }
        let mut last = [0; 8];
        let rest = words.remainder();
        last[..rest.len()].copy_from_slice(rest);
        last[7] = bytes.len() as u8;
        state.add(u64::from_le_bytes(last));
        state.finish()
    }

    /// Returns the hash of a path.
    pub fn path(&self, path: &[u8]) -> u64 {
        self.hash(path) as u64
    }
}

fn word(bytes: &[u8]) -> u64 {
    let mut word = [0; 8];
    word[..bytes.len()].copy_from_slice(bytes);
    u64::from_le_bytes(word)
}

struct State([u64; 4]);

impl State {
    fn new(first: u64, second: u64) -> State {
        State([
            first ^ 0x736f_6d65_7073_6575,
            second ^ 0x646f_7261_6e64_6f6d ^ 0xee,
            first ^ 0x6c79_6765_6e65_7261,
            second ^ 0x7465_6462_7974_6573,
        ])
    }

    fn add(&mut self, word: u64) {
        self.0[3] ^= word;
        self.rounds(2);
        self.0[0] ^= word;
    }

    fn rounds(&mut self, count: usize) {
        let [mut a, mut b, mut c, mut d] = self.0;
        for _ in 0..count {
            a = a.wrapping_add(b);
            c = c.wrapping_add(d);
            b = b.rotate_left(13) ^ a;
            d = d.rotate_left(16) ^ c;
            a = a.rotate_left(32).wrapping_add(d);
            c = c.wrapping_add(b);
            b = b.rotate_left(17) ^ c;
            d = d.rotate_left(21) ^ a;
            c = c.rotate_left(32);
        }
        self.0 = [a, b, c, d];
    }

    fn folded(&self) -> u64 {
        self.0.iter().fold(0, |all, word| all ^ word)
    }

    fn finish(mut self) -> u128 {
        self.0[2] ^= 0xee;
        self.rounds(4);
        let low = self.folded();
        self.0[1] ^= 0xdd;
        self.rounds(4);
        u128::from(low) | u128::from(self.folded()) << 64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The first vectors of the reference implementation.
    #[test]
    fn hashes_are_those_of_the_reference() {
        let key = Key(std::array::from_fn(|at| at as u8));
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
        let (one, other) = (Key::random(), Key::random());
        assert_ne!(one, other);
        assert_ne!(one.hash(b"a"), other.hash(b"a"));
        assert_ne!(one.hash(b"a"), one.hash(b"a\0"));
        assert_ne!(one.hash(&[0; 8]), one.hash(&[0; 16]));
    }
}
