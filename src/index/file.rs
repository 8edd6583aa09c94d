//! The format of the index file: a header, the rows, and a checksum of both.
//!
//! All numbers are little-endian. The file is only read by the program that wrote it, or by one of
//! the same version, which the fingerprint contains.

use std::hash::Hasher;
use std::io::{self, Read, Write};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use siphasher::sip128::Hasher128;

use super::rows::Row;
use super::siphash::HashKey;

/// The first bytes of the file.
const MAGIC: &[u8; 8] = b"lsyncix2";
/// The bytes of a row.
pub const ROW_BYTES: usize = 24;
/// The bytes of the header.
const HEADER_BYTES: usize = 8 + 16 + 16 + 8 + 8 + 8;
/// The bytes of the checksum.
const CHECKSUM_BYTES: usize = 16;
/// The number of rows that are read at once.
const ROWS_PER_BLOCK: usize = 2048;
/// The key of fingerprint and checksum, which need no secret.
const PLAIN: HashKey = HashKey(*b"lsyncd: an index");

/// The conditions under which an index was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// The key of its hashes.
    pub key: HashKey,
    /// The hash of all that decides what is sent where: see [`fingerprint`].
    pub fingerprint: u128,
    /// All changes before this time are either in the rows or on the target.
    pub taken: SystemTime,
    /// The begin of the last full comparison.
    pub compared: SystemTime,
}

/// An index in memory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Index {
    /// The conditions.
    pub header: Header,
    /// The rows, sorted.
    pub rows: Vec<Row>,
}

/// Returns the hash of texts; their lengths are hashed as well.
pub fn fingerprint<'a>(parts: impl IntoIterator<Item = &'a [u8]>) -> u128 {
    let mut all = Vec::new();
    for part in parts {
        all.extend_from_slice(&(part.len() as u64).to_le_bytes());
        all.extend_from_slice(part);
    }
    PLAIN.hash(&all)
}

impl Index {
    /// Writes the file in pieces.
    ///
    /// # Errors
    ///
    /// Those of writing.
    pub fn write(&self, file: &mut dyn Write) -> io::Result<()> {
        let mut sum = PLAIN.hasher();
        let mut block = Vec::with_capacity(ROWS_PER_BLOCK * ROW_BYTES);
        let header = &self.header;
        block.extend_from_slice(MAGIC);
        block.extend_from_slice(&header.key.0);
        block.extend_from_slice(&header.fingerprint.to_le_bytes());
        for number in [
            nanos(header.taken),
            nanos(header.compared),
            self.rows.len() as u64,
        ] {
            block.extend_from_slice(&number.to_le_bytes());
        }
        let mut put = |block: &mut Vec<u8>| {
            sum.write(block);
            file.write_all(block)?;
            block.clear();
            Ok::<(), io::Error>(())
        };
        put(&mut block)?;
        for rows in self.rows.chunks(ROWS_PER_BLOCK) {
            for row in rows {
                block.extend_from_slice(&row.path.to_le_bytes());
                block.extend_from_slice(&row.parent.to_le_bytes());
                block.extend_from_slice(&row.digest.to_le_bytes());
            }
            put(&mut block)?;
        }
        file.write_all(&sum.finish128().as_u128().to_le_bytes())
    }

    /// Reads a file of this size in pieces, so that it is never in memory twice; `None` if it is
    /// damaged.
    ///
    /// # Errors
    ///
    /// It cannot be read, or it is shorter than it should be.
    pub fn read(mut file: impl Read, size: u64) -> io::Result<Option<Index>> {
        let mut sum = PLAIN.hasher();
        let mut head = [0; HEADER_BYTES];
        file.read_exact(&mut head)?;
        sum.write(&head);
        let Some((header, count)) = header(&head) else {
            return Ok(None);
        };
        let wanted = (HEADER_BYTES + CHECKSUM_BYTES) as u64;
        if count
            .checked_mul(ROW_BYTES as u64)
            .and_then(|rows| rows.checked_add(wanted))
            != Some(size)
        {
            return Ok(None);
        }
        let mut left = count as usize;
        let mut rows = Vec::with_capacity(left);
        let mut block = vec![0; left.min(ROWS_PER_BLOCK) * ROW_BYTES];
        while left > 0 {
            let block = &mut block[..left.min(ROWS_PER_BLOCK) * ROW_BYTES];
            file.read_exact(block)?;
            sum.write(block);
            rows.extend(block.chunks_exact(ROW_BYTES).filter_map(row));
            left -= block.len() / ROW_BYTES;
        }
        let mut expected = [0; CHECKSUM_BYTES];
        file.read_exact(&mut expected)?;
        let is_right = sum.finish128().as_u128() == u128::from_le_bytes(expected);
        Ok((is_right && rows.is_sorted()).then_some(Index { header, rows }))
    }
}

/// Returns the header and the number of rows.
fn header(bytes: &[u8]) -> Option<(Header, u64)> {
    let rest = bytes.strip_prefix(MAGIC)?;
    let (key, rest) = rest.split_first_chunk()?;
    let (fingerprint, mut rest) = rest.split_first_chunk()?;
    let mut number = || {
        let (number, more) = rest.split_first_chunk()?;
        rest = more;
        Some(u64::from_le_bytes(*number))
    };
    let header = Header {
        key: HashKey(*key),
        fingerprint: u128::from_le_bytes(*fingerprint),
        taken: time(number()?),
        compared: time(number()?),
    };
    Some((header, number()?))
}

fn row(bytes: &[u8]) -> Option<Row> {
    let (path, rest) = bytes.split_first_chunk()?;
    let (parent, rest) = rest.split_first_chunk()?;
    let (digest, _) = rest.split_first_chunk()?;
    Some(Row {
        path: u64::from_le_bytes(*path),
        parent: u64::from_le_bytes(*parent),
        digest: u64::from_le_bytes(*digest),
    })
}

/// Returns nanoseconds since the epoch. Times before it become the epoch.
fn nanos(time: SystemTime) -> u64 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}

fn time(nanos: u64) -> SystemTime {
    UNIX_EPOCH + Duration::from_nanos(nanos)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn encode(index: &Index) -> Vec<u8> {
        let mut bytes = Vec::new();
        index.write(&mut bytes).unwrap();
        bytes
    }

    fn decode(bytes: &[u8]) -> Option<Index> {
        Index::read(bytes, bytes.len() as u64).ok().flatten()
    }

    fn index(numbers: &[u64]) -> Index {
        let mut rows: Vec<Row> = numbers
            .iter()
            .map(|&path| Row {
                path,
                parent: path / 2,
                digest: path << 40 | 5,
            })
            .collect();
        super::super::rows::sort(&mut rows);
        Index {
            header: Header {
                key: HashKey([7; 16]),
                fingerprint: 1 << 100,
                taken: time(1_800_000_000_123_456_789),
                compared: time(5),
            },
            rows,
        }
    }

    #[test]
    fn parts_of_a_fingerprint_are_told_apart() {
        let of = |parts: &[&str]| fingerprint(parts.iter().map(|part| part.as_bytes()));
        assert_ne!(of(&["a", "b"]), of(&["ab"]));
        assert_ne!(of(&["", "a"]), of(&["a", ""]));
        assert_eq!(of(&["a", "b"]), of(&["a", "b"]));
    }

    proptest! {
        #[test]
        fn a_file_is_read_as_it_was_written(numbers in prop::collection::vec(any::<u64>(), 0..50)) {
            let index = index(&numbers);
            let bytes = encode(&index);
            prop_assert_eq!(bytes.len(), HEADER_BYTES + ROW_BYTES * index.rows.len() + 16);
            prop_assert_eq!(decode(&bytes), Some(index));
        }

        /// One damaged byte, a missing end and added bytes are noticed.
        #[test]
        fn a_damaged_file_is_not_read(
            numbers in prop::collection::vec(any::<u64>(), 0..20),
            at in any::<prop::sample::Index>(),
            change in 1u8..,
            more in prop::collection::vec(any::<u8>(), 1..80),
        ) {
            let bytes = encode(&index(&numbers));
            let mut damaged = bytes.clone();
            damaged[at.index(bytes.len())] ^= change;
            prop_assert_eq!(decode(&damaged), None);
            prop_assert_eq!(decode(&bytes[..at.index(bytes.len())]), None);
            prop_assert_eq!(decode(&[bytes, more].concat()), None);
        }

        #[test]
        fn no_bytes_stop_the_program(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            prop_assert_eq!(decode(&bytes), None);
        }

        /// A right checksum does not make rows of anything.
        #[test]
        fn a_checksum_is_no_proof(rest in prop::collection::vec(any::<u8>(), 0..300)) {
            let mut bytes = [MAGIC.as_slice(), &rest].concat();
            let sum = PLAIN.hash(&bytes);
            bytes.extend_from_slice(&sum.to_le_bytes());
            if let Some(index) = decode(&bytes) {
                prop_assert_eq!(encode(&index), bytes);
            }
        }
    }

    /// Other conditions, or the same bytes in other parts, are another fingerprint.
    #[test]
    fn a_fingerprint_stands_for_each_part() {
        let of = |parts: &[&str]| fingerprint(parts.iter().map(|part| part.as_bytes()));
        let all = [
            of(&[]),
            of(&[""]),
            of(&["a", "b"]),
            of(&["a", "c"]),
            of(&["ab"]),
            of(&["ab", ""]),
            of(&["", "ab"]),
        ];
        for (at, one) in all.iter().enumerate() {
            assert!(!all[at + 1..].contains(one), "{at}");
        }
        assert_eq!(of(&["a", "b"]), all[2]);
    }
}
