//! A ring: two halves, of which the newer one is written. When it is full, it replaces the older
//! one.

use std::io;

use super::record::{self, BatchRecord};
use super::store::Halves;

/// The state of a ring that is kept between batches.
#[derive(Debug, Default)]
pub struct Ring {
    /// The number of the next entry, and the size of the half that is written. `None` before the
    /// first write, and after a failed one.
    place: Option<RingPosition>,
}

#[derive(Clone, Copy, Debug)]
struct RingPosition {
    next: u64,
    size: usize,
}

impl Ring {
    /// Writes batches in their order. `limit` is the maximum size of both halves. `now` is the time
    /// in microseconds since the epoch, from which the numbers of a new ring begin, so that they do
    /// not repeat those of a ring that was removed.
    ///
    /// # Errors
    ///
    /// The ring cannot be written. Some of the batches are lost.
    pub fn append(
        &mut self,
        halves: &mut dyn Halves,
        batches: &[BatchRecord],
        limit: usize,
        now: u64,
    ) -> io::Result<()> {
        let half = limit / 2;
        let mut place = self.enter(halves, half, now)?;
        let mut pending = Vec::new();
        for batch in batches {
            for (count, record) in batch.records(place.next) {
                place.next += count;
                if place.size > 0 && place.size + record.len() > half {
                    flush(halves, &mut pending)?;
                    halves.turn()?;
                    place.size = 0;
                }
                place.size += record.len();
                pending.extend(record);
            }
        }
        flush(halves, &mut pending)?;
        self.place = Some(place);
        Ok(())
    }

    /// Returns the number of the next entry, if it is known without reading.
    pub fn next(&self) -> Option<u64> {
        self.place.map(|place| place.next)
    }

    /// Returns the place of the next write. It is not kept until that has succeeded. What is behind
    /// the last valid record is removed.
    fn enter(
        &mut self,
        halves: &mut dyn Halves,
        half: usize,
        now: u64,
    ) -> io::Result<RingPosition> {
        let size = halves.size()?;
        if let Some(place) = self.place.take()
            && place.size == size
        {
            return Ok(place);
        }
        let [older, newer] = halves.load(size.max(half))?;
        let last = record::records(&newer).last();
        let end = last.as_ref().map_or(0, |record| record.end);
        if end < size {
            halves.truncate(end)?;
        }
        let last = last.or_else(|| record::records(&older).last());
        Ok(RingPosition {
            next: last.map_or(now, |record| record.next()),
            size: end,
        })
    }
}

fn flush(halves: &mut dyn Halves, pending: &mut Vec<u8>) -> io::Result<()> {
    if !pending.is_empty() {
        halves.append(pending)?;
        pending.clear();
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::record::tests::{Plain, batch, entries, plain};
    use super::super::record::{BatchSummary, Operation};
    use super::super::store::MemoryHalves;
    use super::*;
    use proptest::prelude::*;

    const LIMIT: usize = 4000;

    fn read(halves: &mut MemoryHalves) -> (Vec<u64>, Vec<Plain>) {
        let bytes = halves.load(LIMIT).unwrap().concat();
        let mut all = (Vec::new(), Vec::new());
        for record in record::records(&bytes) {
            all.0.extend(record.entries().map(|(number, _)| number));
            all.1.extend(plain(&record));
        }
        all
    }

    proptest! {
        /// The ring has the newest entries, with consecutive numbers, within its limit, whenever
        /// the writer starts anew.
        #[test]
        fn the_newest_entries_are_kept(
            batches in prop::collection::vec((entries(), any::<bool>()), 1..40),
        ) {
            let (mut halves, mut ring) = (MemoryHalves::default(), Ring::default());
            let mut all = Vec::new();
            for (entries, restarts) in &batches {
                if *restarts {
                    ring = Ring::default();
                }
                ring.append(&mut halves, &[batch(1, entries)], LIMIT, 100).unwrap();
                all.extend(entries.clone());
            }
            let (numbers, kept) = read(&mut halves);
            prop_assert!(halves.load(LIMIT).unwrap().iter().all(|half| half.len() <= LIMIT / 2
                || record::records(half).count() == 1));
            prop_assert_eq!(&kept[..], &all[all.len() - kept.len()..]);
            let last = 100 + all.len() as u64;
            let expected: Vec<u64> = (last - kept.len() as u64..last).collect();
            prop_assert_eq!(numbers, expected);
        }
    }

    fn one(name: &str) -> Vec<BatchRecord> {
        let mut batch = BatchRecord::new(BatchSummary::default(), usize::MAX);
        batch.push(Operation::Sent, name.as_bytes(), b"");
        vec![batch]
    }

    #[test]
    fn a_full_half_turns_the_ring_with_the_next_byte() {
        let size = one("/a")[0].records(0)[0].1.len();
        for (limit, kept) in [(4 * size, 2), (4 * size - 2, 1)] {
            let (mut halves, mut ring) = (MemoryHalves::default(), Ring::default());
            for name in ["/a", "/b"] {
                ring.append(&mut halves, &one(name), limit, 0).unwrap();
            }
            assert_eq!(halves.size().unwrap(), kept * size, "{limit}");
            assert_eq!(read(&mut halves).0.len(), 2);
        }
    }

    #[test]
    fn what_is_behind_the_last_record_is_removed() {
        let (mut halves, mut ring) = (MemoryHalves::default(), Ring::default());
        ring.append(&mut halves, &one("/a"), LIMIT, 5).unwrap();
        let whole = halves.size().unwrap();
        let torn = one("/b")[0].records(6)[0].1.clone();
        halves.append(&torn[..torn.len() - 1]).unwrap();
        ring.append(&mut halves, &one("/c"), LIMIT, 9).unwrap();
        assert_eq!(halves.size().unwrap(), 2 * whole);
        let (numbers, entries) = read(&mut halves);
        assert_eq!(numbers, [5, 6]);
        assert_eq!(entries[1].1, b"/c");
    }
}
