//! Splits the output of a child into lines.

/// The maximum length in bytes of a line that is reported in one piece. A longer one is split into
/// pieces of this size.
pub const MAX_LINE: usize = 8192;

/// Joins chunks and extracts lines.
///
/// A line ends at `\n`, at `\r\n` and also at a single `\r`: rsync(1) redraws its progress line
/// that way. Blank lines ended by `\n` are reported; an empty text before a `\r` is not.
#[derive(Debug, Default)]
pub(super) struct Splitter {
    /// The start of a line whose end has not been seen; shorter than [`MAX_LINE`].
    partial: Vec<u8>,
    /// True if the last line was not ended by `\n`, so that one that follows directly belongs to
    /// it.
    unended: bool,
}

impl Splitter {
    /// Adds bytes and passes each completed line, without its end, to `line`.
    pub(super) fn push(&mut self, mut bytes: &[u8], line: &mut dyn FnMut(&[u8])) {
        while let Some(at) = bytes.iter().position(|&b| b == b'\n' || b == b'\r') {
            let (head, end) = (&bytes[..at], bytes[at]);
            bytes = &bytes[at + 1..];
            self.extend(head, line);
            if !self.partial.is_empty() || (end == b'\n' && !self.unended) {
                line(&self.partial);
                self.partial.clear();
            }
            self.unended = end == b'\r';
        }
        self.extend(bytes, line);
    }

    /// Passes an unfinished line to `line`; its rest will be a separate line.
    pub(super) fn flush(&mut self, line: &mut dyn FnMut(&[u8])) {
        if !self.partial.is_empty() {
            line(&self.partial);
            self.partial.clear();
            self.unended = true;
        }
    }

    /// Adds bytes without a line end, and passes on pieces that reach the limit.
    fn extend(&mut self, mut bytes: &[u8], line: &mut dyn FnMut(&[u8])) {
        while self.partial.len() + bytes.len() >= MAX_LINE {
            let (head, rest) = bytes.split_at(MAX_LINE - self.partial.len());
            self.partial.extend_from_slice(head);
            line(&self.partial);
            self.partial.clear();
            self.unended = true;
            bytes = rest;
        }
        if !bytes.is_empty() {
            self.partial.extend_from_slice(bytes);
            self.unended = false;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn split(chunks: &[&[u8]]) -> Vec<Vec<u8>> {
        let mut found = Vec::new();
        let mut splitter = Splitter::default();
        for chunk in chunks {
            splitter.push(chunk, &mut |line| found.push(line.to_vec()));
        }
        splitter.flush(&mut |line| found.push(line.to_vec()));
        found
    }

    /// Applies the same rules to the whole text at once.
    fn naive(text: &[u8]) -> Vec<Vec<u8>> {
        let mut found = Vec::new();
        let mut rest = text;
        while !rest.is_empty() {
            let at = rest.iter().position(|b| b"\r\n".contains(b));
            let (line, end, next) = match at {
                None => (rest, &b""[..], &b""[..]),
                Some(at) if rest[at..].starts_with(b"\r\n") => {
                    (&rest[..at], &b"\r\n"[..], &rest[at + 2..])
                }
                Some(at) => (&rest[..at], &rest[at..at + 1], &rest[at + 1..]),
            };
            if !line.is_empty() {
                found.extend(line.chunks(MAX_LINE).map(<[u8]>::to_vec));
            } else if end == b"\n" {
                found.push(Vec::new());
            }
            rest = next;
        }
        found
    }

    #[test]
    fn ends_of_lines() {
        assert_eq!(split(&[b"a\nb\r\nc\rd"]), [b"a", b"b", b"c", b"d"]);
        assert_eq!(split(&[b"a\r", b"\nb"]), [b"a", b"b"]);
        assert_eq!(split(&[b"\n\n"]), [b"", b""]);
        assert_eq!(
            split(&[b"name\n\r 10%\r100%\n"]),
            [&b"name"[..], b" 10%", b"100%"]
        );
        assert!(split(&[b""]).is_empty());
    }

    #[test]
    fn a_flushed_line_is_no_blank_line() {
        let mut found = Vec::new();
        let mut splitter = Splitter::default();
        splitter.push(b"said", &mut |line| found.push(line.to_vec()));
        splitter.flush(&mut |line| found.push(line.to_vec()));
        splitter.push(b"\n\nmore\n", &mut |line| found.push(line.to_vec()));
        assert_eq!(found, [&b"said"[..], b"", b"more"]);
    }

    #[test]
    fn a_long_line_comes_in_pieces() {
        let long = vec![b'x'; 2 * MAX_LINE + 5];
        let lengths: Vec<_> = split(&[&long, b"\n"]).iter().map(Vec::len).collect();
        assert_eq!(lengths, [MAX_LINE, MAX_LINE, 5]);
        let exact = vec![b'x'; MAX_LINE];
        assert_eq!(split(&[&exact, b"\n", b"y"]), [exact, b"y".to_vec()]);
    }

    proptest! {
        #[test]
        fn chunks_do_not_matter(
            pieces in prop::collection::vec(
                prop_oneof![
                    prop::collection::vec(prop::sample::select(b"ab\r\n".to_vec()), 0..6),
                    (MAX_LINE - 2..MAX_LINE + 3).prop_map(|n| vec![b'x'; n]),
                ],
                0..12,
            ),
        ) {
            let chunks: Vec<&[u8]> = pieces.iter().map(Vec::as_slice).collect();
            prop_assert_eq!(split(&chunks), naive(&pieces.concat()));
        }
    }
}
