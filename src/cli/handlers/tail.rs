use std::collections::VecDeque;

/// How much of each output stream is kept.
pub(super) const LIMIT: usize = 16 * 1024;

/// The last bytes of a stream.
#[derive(Debug, Default)]
pub(super) struct Tail {
    bytes: VecDeque<u8>,
    dropped: u64,
}

impl Tail {
    pub(super) fn push(&mut self, bytes: &[u8]) {
        let keep = &bytes[bytes.len().saturating_sub(LIMIT)..];
        let excess = (self.bytes.len() + keep.len()).saturating_sub(LIMIT);
        self.bytes.drain(..excess);
        self.bytes.extend(keep);
        self.dropped += (excess + bytes.len() - keep.len()) as u64;
    }

    /// The text, with a note in front when something was left out. What is no text grows when it
    /// becomes text, and is cut once more.
    pub(super) fn into_text(self) -> String {
        let (front, back) = self.bytes.as_slices();
        let text = clean(&[front, back].concat());
        let from = (text.len().saturating_sub(LIMIT)..).find(|at| text.is_char_boundary(*at)).unwrap_or(0);
        let (cut, text) = text.split_at(from);
        match self.dropped + cut.chars().count() as u64 {
            0 => text.to_owned(),
            dropped => format!("[{dropped} bytes left out]{text}"),
        }
    }
}

/// Text of bytes from outside. Control characters become a mark: they would only be a trap for the
/// terminal that shows them, and would blow up as JSON.
pub(super) fn clean(bytes: &[u8]) -> String {
    let mark = |c: char| if c.is_control() && !matches!(c, '\n' | '\t' | '\r') { '\u{fffd}' } else { c };
    String::from_utf8_lossy(bytes).chars().map(mark).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_end_is_kept() {
        let mut tail = Tail::default();
        tail.push(b"start");
        assert_eq!(tail.bytes.len(), 5);
        for _ in 0..3 {
            tail.push(&[b'x'; LIMIT - 1]);
        }
        tail.push(b"end");
        assert_eq!(tail.bytes.len(), LIMIT);
        let text = tail.into_text();
        assert!(text.starts_with("[32773 bytes left out]xxx") && text.ends_with("xend"), "{}", &text[..40]);
        let mut tail = Tail::default();
        tail.push(&vec![b'y'; 3 * LIMIT]);
        assert_eq!(tail.bytes.len(), LIMIT);
        assert_eq!(tail.dropped, 2 * LIMIT as u64);
        let mut tail = Tail::default();
        tail.push(&vec![0xff; 2 * LIMIT]);
        assert!(tail.into_text().len() < LIMIT + 40, "also when it is no text");
    }

    #[test]
    fn what_is_no_text_is_marked() {
        assert_eq!(clean(b"a\xff\x1b[1m\tb\n"), "a\u{fffd}\u{fffd}[1m\tb\n");
    }
}
