//! What a child prints on standard error, for the log: libraries in C print what they please, and as much.

use std::time::{Duration, Instant};

use tokio::io::AsyncReadExt;
use tokio::process::ChildStderr;
use tracing::warn;

/// Longest line that is told; the rest of it is not.
const LINE_BYTES_MAX: usize = 1024;

/// Lines told in each [`WINDOW`]; the others are counted.
const LINES_MAX: u32 = 10;
const WINDOW: Duration = Duration::from_secs(60);

/// At once, from the pipe.
const READ_BYTES: usize = 4 * 1024;

/// Tells what child `id` prints, until it closes its standard error.
pub(super) async fn tell(mut output: ChildStderr, id: u32) {
    let tell = |line: &str, left_out: u64| match (line.is_empty(), left_out) {
        (false, 0) => warn!(encoder.id = id, "the encoder says: {line}"),
        (false, _) => warn!(encoder.id = id, left_out, "the encoder says: {line}"),
        (true, _) => warn!(encoder.id = id, left_out, "the encoder said more"),
    };
    let mut words = Words::new(Instant::now());
    let mut bytes = [0; READ_BYTES];
    while let Ok(count @ 1..) = output.read(&mut bytes).await {
        words.push(&bytes[..count], Instant::now(), tell);
    }
    words.end(Instant::now(), tell);
}

#[derive(Debug)]
struct Words {
    line: Vec<u8>,
    /// When the window began, and what was told in it.
    window: Instant,
    told: u32,
    left_out: u64,
}

impl Words {
    fn new(now: Instant) -> Self {
        Self { line: Vec::new(), window: now, told: 0, left_out: 0 }
    }

    /// Tells the lines that end in `bytes`, and how many were left out since the last.
    fn push(&mut self, bytes: &[u8], now: Instant, mut tell: impl FnMut(&str, u64)) {
        for piece in bytes.split_inclusive(|byte| *byte == b'\n') {
            let text = piece.strip_suffix(b"\n");
            let room = LINE_BYTES_MAX - self.line.len();
            let kept = text.unwrap_or(piece);
            self.line.extend_from_slice(&kept[..kept.len().min(room)]);
            if text.is_some() {
                self.line_ends(now, &mut tell);
            }
        }
    }

    /// Tells what was not ended with a line break.
    fn end(&mut self, now: Instant, mut tell: impl FnMut(&str, u64)) {
        self.line_ends(now, &mut tell);
        if self.left_out > 0 {
            tell("", self.left_out);
        }
    }

    fn line_ends(&mut self, now: Instant, tell: &mut impl FnMut(&str, u64)) {
        if now >= self.window + WINDOW {
            (self.window, self.told) = (now, 0);
        }
        let line = std::mem::take(&mut self.line);
        if line.iter().all(u8::is_ascii_whitespace) {
            return;
        }
        if self.told < LINES_MAX {
            self.told += 1;
            tell(&String::from_utf8_lossy(&line), std::mem::take(&mut self.left_out));
        } else {
            self.left_out += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Lines, and how many were left out before each.
    fn told(words: &mut Words, bytes: &[u8], now: Instant) -> Vec<(String, u64)> {
        let mut told = Vec::new();
        words.push(bytes, now, |line, left_out| told.push((line.to_owned(), left_out)));
        told
    }

    #[test]
    fn ten_lines_a_minute_are_told_and_the_others_counted() {
        let now = Instant::now();
        let mut words = Words::new(now);
        let flood = "again\n".repeat(1_000);
        assert_eq!(told(&mut words, flood.as_bytes(), now), vec![("again".to_owned(), 0); 10]);
        assert_eq!(told(&mut words, flood.as_bytes(), now + WINDOW - Duration::from_nanos(1)), []);
        assert_eq!(told(&mut words, b"later\n", now + WINDOW), [("later".to_owned(), 1_990)]);
        assert_eq!(told(&mut words, &flood.as_bytes()[..60], now + WINDOW).len(), 9);
        let mut last = Vec::new();
        words.push(b"unfinished", now + WINDOW, |_, _| unreachable!());
        words.end(now + WINDOW, |line, left_out| last.push((line.to_owned(), left_out)));
        assert_eq!(last, [(String::new(), 2)]);
    }

    #[test]
    fn the_last_words_need_no_line_break() {
        let now = Instant::now();
        let mut words = Words::new(now);
        assert_eq!(told(&mut words, b"\n  \nsegmentation", now), []);
        let mut last = Vec::new();
        words.push(b" fault", now, |_, _| unreachable!());
        words.end(now, |line, left_out| last.push((line.to_owned(), left_out)));
        assert_eq!(last, [("segmentation fault".to_owned(), 0)]);
    }

    proptest! {
        /// However it is cut: the same lines, none longer than the limit, and no memory beyond that.
        #[test]
        fn lines_do_not_depend_on_how_they_come(
            lines in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..3_000), 0..8),
            cut in 1_usize..2_000,
        ) {
            let now = Instant::now();
            let bytes = lines.join(&b'\n');
            let (mut whole, mut pieces) = (Words::new(now), Words::new(now));
            let all = told(&mut whole, &bytes, now);
            let mut parts = Vec::new();
            for piece in bytes.chunks(cut) {
                parts.extend(told(&mut pieces, piece, now));
                prop_assert!(pieces.line.len() <= LINE_BYTES_MAX);
            }
            prop_assert_eq!(&all, &parts);
            prop_assert!(all.len() <= LINES_MAX as usize);
            // A byte that is no UTF-8 takes three to say so.
            prop_assert!(all.iter().all(|(line, _)| line.len() <= 3 * LINE_BYTES_MAX));
        }
    }
}
