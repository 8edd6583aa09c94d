//! The format of a ring: records of a batch, or of a part of a large one.
//!
//! A record consists of the mark [`MARK`], the length of its body (four bytes), the CRC-32 (that of
//! gzip) of the body (four bytes), and the body: number of the first entry, summary of the batch,
//! entries.
//! Integers are little-endian; texts have their length in front. The reader skips bytes that are
//! not a valid record, so that an incomplete or damaged record does not affect others.

/// The first bytes of a record. They change with the format.
const MARK: [u8; 4] = *b"\xffLR1";

/// The bytes before the body.
const HEADER_BYTES: usize = 12;

/// The maximum size of the entries of one record. A larger batch has several records.
const MAX_PART_BYTES: usize = 32 * 1024;

/// The maximum size of a text in a record.
const MAX_TEXT_BYTES: usize = 16 * 1024;

/// The maximum size of a body: one entry more than [`MAX_PART_BYTES`], and the summary.
const MAX_BODY_BYTES: usize = MAX_PART_BYTES + 4 * MAX_TEXT_BYTES;

/// The operation on a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// It was passed to the transfer as new or changed.
    Sent,
    /// It was deleted on the target.
    Deleted,
    /// It was renamed on the target.
    Moved,
    /// Its attributes were sent.
    Attributes,
    /// Everything was compared.
    Compared,
    /// The transfer failed for it.
    Failed,
}

impl Operation {
    /// All operations, at the index of their code.
    pub const ALL: [Operation; 6] = [
        Operation::Sent,
        Operation::Deleted,
        Operation::Moved,
        Operation::Attributes,
        Operation::Compared,
        Operation::Failed,
    ];

    /// Returns the word in output and JSON.
    pub fn name(self) -> &'static str {
        match self {
            Operation::Sent => "sent",
            Operation::Deleted => "deleted",
            Operation::Moved => "moved",
            Operation::Attributes => "attributes",
            Operation::Compared => "compared",
            Operation::Failed => "failed",
        }
    }
}

/// The common properties of all entries of a batch.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BatchSummary {
    /// The time at which it ended, in microseconds since the epoch.
    pub time: u64,
    /// Its duration in microseconds.
    pub duration: u64,
    /// The exit code; 128 + n is signal n.
    pub code: i32,
    /// The number of bytes sent, if the transfer reported it.
    pub bytes: Option<u64>,
    /// The number of queue entries.
    pub entries: u32,
}

/// A batch to be written: its summary and its entries, encoded.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BatchRecord {
    summary: BatchSummary,
    parts: Vec<Part>,
    /// The maximum size of all parts. Beyond it, the first entries are omitted.
    limit: usize,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Part {
    count: u32,
    bytes: Vec<u8>,
}

impl BatchRecord {
    /// Returns the record of a batch without entries. Of a batch larger than `limit` bytes the last
    /// entries are kept.
    pub fn new(summary: BatchSummary, limit: usize) -> BatchRecord {
        BatchRecord {
            summary,
            parts: Vec::new(),
            limit,
        }
    }

    /// Adds an entry. `other` is the new path of a Move, or the reason of a failure.
    pub fn push(&mut self, operation: Operation, path: &[u8], other: &[u8]) {
        let room = |part: &Part| part.bytes.len() < MAX_PART_BYTES;
        if !self.parts.last().is_some_and(room) {
            if (self.parts.len() + 1) * MAX_PART_BYTES > self.limit && !self.parts.is_empty() {
                self.parts.remove(0);
            }
            self.parts.push(Part::default());
        }
        let Some(part) = self.parts.last_mut() else {
            return;
        };
        part.count += 1;
        part.bytes.push(operation as u8);
        put_text(&mut part.bytes, path);
        put_text(&mut part.bytes, other);
    }

    /// Returns the operations with their paths and the other texts.
    #[cfg(test)]
    pub fn entries(&self) -> Vec<(Operation, Vec<u8>, Vec<u8>)> {
        let bytes: Vec<u8> = self
            .records(0)
            .into_iter()
            .flat_map(|(_, bytes)| bytes)
            .collect();
        let entries = records(&bytes).flat_map(|record| record.entries());
        let plain = |it: StoredEntry<'_>| (it.operation, it.path.to_vec(), it.other.to_vec());
        entries.map(|(_, entry)| plain(entry)).collect()
    }

    /// Returns true if it has no entry.
    pub fn is_empty(&self) -> bool {
        self.parts.is_empty()
    }

    /// Returns the number of bytes of all entries.
    pub fn size(&self) -> usize {
        let sizes = self.parts.iter().map(|part| part.bytes.len());
        sizes.sum()
    }

    /// Returns the records, each with the number of its entries. The first entry gets the number
    /// `first`.
    pub fn records(&self, mut first: u64) -> Vec<(u64, Vec<u8>)> {
        let mut records = Vec::with_capacity(self.parts.len());
        for part in &self.parts {
            let count = u64::from(part.count);
            records.push((count, self.record(part, first)));
            first += count;
        }
        records
    }

    fn record(&self, part: &Part, first: u64) -> Vec<u8> {
        let summary = &self.summary;
        let mut body = Vec::with_capacity(part.bytes.len() + 64);
        body.extend(first.to_le_bytes());
        body.extend(summary.time.to_le_bytes());
        body.extend(summary.duration.to_le_bytes());
        body.extend(summary.code.to_le_bytes());
        body.push(u8::from(summary.bytes.is_some()));
        body.extend(summary.bytes.unwrap_or(0).to_le_bytes());
        body.extend(summary.entries.to_le_bytes());
        body.extend(part.count.to_le_bytes());
        body.extend(&part.bytes);
        let mut record = Vec::with_capacity(HEADER_BYTES + body.len());
        record.extend(MARK);
        // A body is shorter than MAX_BODY_BYTES.
        record.extend((body.len() as u32).to_le_bytes());
        record.extend(crc32fast::hash(&body).to_le_bytes());
        record.extend(body);
        record
    }
}

fn put_text(bytes: &mut Vec<u8>, text: &[u8]) {
    let text = &text[..text.len().min(MAX_TEXT_BYTES)];
    // MAX_TEXT_BYTES fits into two bytes.
    bytes.extend((text.len() as u16).to_le_bytes());
    bytes.extend(text);
}

/// A record that was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredRecord<'a> {
    /// The number of the first entry.
    pub first: u64,
    /// The summary of its batch.
    pub summary: BatchSummary,
    /// The number of entries.
    pub count: u32,
    entries: &'a [u8],
    /// The offset behind the record.
    pub end: usize,
}

/// An entry that was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StoredEntry<'a> {
    /// The operation.
    pub operation: Operation,
    /// The path relative to the source.
    pub path: &'a [u8],
    /// The new path of a Move, or the reason of a failure.
    pub other: &'a [u8],
}

/// Returns the valid records in these bytes.
pub fn records(bytes: &[u8]) -> impl Iterator<Item = StoredRecord<'_>> {
    let mut at = 0;
    std::iter::from_fn(move || {
        loop {
            at += bytes
                .get(at..)?
                .windows(MARK.len())
                .position(|w| w == MARK)?;
            if let Some(record) = read(bytes, at) {
                at = record.end;
                return Some(record);
            }
            at += 1;
        }
    })
}

/// Reads the record at an offset.
fn read(bytes: &[u8], at: usize) -> Option<StoredRecord<'_>> {
    let mut header = RecordReader(bytes.get(at + MARK.len()..)?);
    let length = header.u32()? as usize;
    let sum = header.u32()?;
    if length > MAX_BODY_BYTES {
        return None;
    }
    let body = header.take(length)?;
    if crc32fast::hash(body) != sum {
        return None;
    }
    let mut body = RecordReader(body);
    let first = body.u64()?;
    let time = body.u64()?;
    let duration = body.u64()?;
    let code = body.u32()? as i32;
    let has_bytes = body.take(1)? == [1];
    let sent = body.u64()?;
    let summary = BatchSummary {
        time,
        duration,
        code,
        bytes: has_bytes.then_some(sent),
        entries: body.u32()?,
    };
    let count = body.u32()?;
    Some(StoredRecord {
        first,
        summary,
        count,
        entries: body.0,
        end: at + HEADER_BYTES + length,
    })
}

impl<'a> StoredRecord<'a> {
    /// Returns the number behind that of the last entry.
    pub fn next(&self) -> u64 {
        self.first.saturating_add(self.count.into())
    }

    /// Returns the entries with their numbers.
    pub fn entries(&self) -> impl Iterator<Item = (u64, StoredEntry<'a>)> + use<'a> {
        let mut rest = RecordReader(self.entries);
        let entries = std::iter::from_fn(move || {
            let code = *rest.take(1)?.first()?;
            Some(StoredEntry {
                operation: *Operation::ALL.get(usize::from(code))?,
                path: rest.text()?,
                other: rest.text()?,
            })
        });
        (self.first..self.next()).zip(entries)
    }
}

struct RecordReader<'a>(&'a [u8]);

impl<'a> RecordReader<'a> {
    fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(taken)
    }

    fn u32(&mut self) -> Option<u32> {
        Some(u32::from_le_bytes(self.take(4)?.try_into().ok()?))
    }

    fn u64(&mut self) -> Option<u64> {
        Some(u64::from_le_bytes(self.take(8)?.try_into().ok()?))
    }

    fn text(&mut self) -> Option<&'a [u8]> {
        let length = u16::from_le_bytes(self.take(2)?.try_into().ok()?);
        self.take(length.into())
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use proptest::prelude::*;

    pub type Plain = (Operation, Vec<u8>, Vec<u8>);

    pub fn operation() -> impl Strategy<Value = Operation> {
        prop::sample::select(&Operation::ALL[..])
    }

    pub fn entries() -> impl Strategy<Value = Vec<Plain>> {
        let text = || prop::collection::vec(any::<u8>(), 0..60);
        prop::collection::vec((operation(), text(), text()), 1..20)
    }

    pub fn batch(time: u64, entries: &[Plain]) -> BatchRecord {
        let summary = BatchSummary {
            time,
            entries: entries.len() as u32,
            ..BatchSummary::default()
        };
        let mut batch = BatchRecord::new(summary, usize::MAX);
        for (operation, path, other) in entries {
            batch.push(*operation, path, other);
        }
        batch
    }

    pub fn plain(record: &StoredRecord<'_>) -> Vec<Plain> {
        let entries = record.entries();
        let plain = entries.map(|(_, it)| (it.operation, it.path.to_vec(), it.other.to_vec()));
        plain.collect()
    }

    #[test]
    fn the_checksum_is_that_of_gzip() {
        assert_eq!(crc32fast::hash(b"123456789"), 0xcbf4_3926);
    }

    #[test]
    fn a_large_batch_has_several_records_and_keeps_its_last_entries() {
        let mut batch = BatchRecord::new(BatchSummary::default(), 3 * MAX_PART_BYTES);
        for number in 0..10_000u32 {
            batch.push(Operation::Sent, format!("/{number:030}").as_bytes(), b"");
        }
        let records = batch.records(7);
        assert_eq!(records.len(), 3);
        let bytes = records.into_iter().flat_map(|(_, bytes)| bytes);
        let bytes: Vec<u8> = bytes.collect();
        let read: Vec<_> = super::records(&bytes).collect();
        assert_eq!(read[0].first, 7);
        assert_eq!(read[1].first, read[0].next());
        let (_, last) = read[2].entries().last().unwrap();
        assert_eq!(last.path, format!("/{:030}", 9999).as_bytes());
        assert!(batch.size() <= 3 * MAX_PART_BYTES + 100);
    }

    #[test]
    fn a_text_that_is_too_long_is_cut() {
        let mut batch = BatchRecord::new(BatchSummary::default(), usize::MAX);
        let long = vec![b'x'; MAX_TEXT_BYTES + 1];
        batch.push(Operation::Failed, &long, &long);
        let bytes = batch.records(0).remove(0).1;
        let record = super::records(&bytes).next().unwrap();
        let (_, entry) = record.entries().next().unwrap();
        assert_eq!((entry.path.len(), entry.other.len()), (16_384, 16_384));
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(
            summary in any::<(u64, u64, i32, Option<u64>, u32)>(),
            all in entries(),
            first in 0..u64::MAX / 2,
        ) {
            let (time, duration, code, bytes, entries) = summary;
            let summary = BatchSummary { time, duration, code, bytes, entries };
            let mut batch = BatchRecord::new(summary.clone(), usize::MAX);
            for (operation, path, other) in &all {
                batch.push(*operation, path, other);
            }
            let bytes = batch.records(first).remove(0).1;
            let mut read = records(&bytes);
            let record = read.next().unwrap();
            prop_assert_eq!(read.next(), None);
            prop_assert_eq!(&record.summary, &summary);
            prop_assert_eq!((record.first, record.end), (first, bytes.len()));
            prop_assert_eq!(plain(&record), all);
        }

        /// Damage costs the damaged record only; the others are read.
        #[test]
        fn damage_costs_one_record(
            batches in prop::collection::vec(entries(), 3..6),
            damaged in 0usize..3,
            at in any::<prop::sample::Index>(),
            change in 1u8..,
        ) {
            let mut bytes = Vec::new();
            for (index, entries) in batches.iter().enumerate() {
                let mut record = batch(index as u64, entries).records(0).remove(0).1;
                if index == damaged {
                    let at = at.index(record.len());
                    record[at] ^= change;
                }
                bytes.extend(record);
            }
            let times: Vec<u64> = records(&bytes).map(|record| record.summary.time).collect();
            let expected: Vec<u64> = (0..batches.len() as u64)
                .filter(|&time| time != damaged as u64)
                .collect();
            prop_assert_eq!(times, expected);
        }

        #[test]
        fn a_torn_record_is_dropped(
            batches in prop::collection::vec(entries(), 2..4),
            cut in any::<prop::sample::Index>(),
        ) {
            let records_of: Vec<Vec<u8>> = batches
                .iter()
                .map(|entries| batch(1, entries).records(0).remove(0).1)
                .collect();
            let all = records_of.concat();
            let cut = cut.index(all.len());
            let mut whole = 0;
            let mut end = 0;
            for record in &records_of {
                end += record.len();
                whole += usize::from(end <= cut);
            }
            prop_assert_eq!(records(&all[..cut]).count(), whole);
        }

        #[test]
        fn any_bytes_are_read_without_panic(bytes in prop::collection::vec(any::<u8>(), 0..500)) {
            for record in records(&bytes) {
                let _ = record.entries().count();
            }
        }
    }
}
