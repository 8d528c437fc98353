//! Where records end in a stream of bytes: at line breaks, but not at those between quotes.

/// A record that is longer than this ends anywhere.
pub const LENGTH_MAX: usize = 64 << 20;

/// Finds one record after the other. Knows what it has seen of a record whose end has not come yet.
#[derive(Clone, Debug)]
pub struct Splitter {
    quote: Option<u8>,
    /// Bytes of the record at hand that were looked at.
    seen: usize,
    inside_quotes: bool,
}

impl Splitter {
    /// A record is a line.
    pub fn plain() -> Splitter {
        Splitter { quote: None, seen: 0, inside_quotes: false }
    }

    /// A record is a line, in which what is quoted may have line breaks.
    pub fn quoted(quote: u8) -> Splitter {
        Splitter { quote: Some(quote), ..Splitter::plain() }
    }

    /// The length of the record at the front of `bytes`, line break included; `None`: its end is still to come, and
    /// `bytes` will begin with it again. At the end of the stream (`last`) what is left is a record.
    ///
    /// A quote that is never closed would swallow all that follows: then the record is the one line that has it.
    pub fn next(&mut self, bytes: &[u8], last: bool) -> Option<usize> {
        let unseen = bytes.get(self.seen..).unwrap_or_default();
        let found = match self.quote {
            None => unseen.iter().position(|b| *b == b'\n'),
            Some(quote) => unseen.iter().position(|b| {
                self.inside_quotes ^= *b == quote;
                *b == b'\n' && !self.inside_quotes
            }),
        };
        let end = match found {
            Some(at) => self.seen + at + 1,
            None if (last && !bytes.is_empty()) || bytes.len() > LENGTH_MAX => {
                let line = bytes.iter().position(|b| *b == b'\n' && self.inside_quotes);
                line.map_or(bytes.len(), |at| at + 1)
            }
            None => {
                self.seen = bytes.len();
                return None;
            }
        };
        (self.seen, self.inside_quotes) = (0, false);
        Some(end)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Cuts a text that comes in pieces of `piece` bytes.
    fn check(mut splitter: Splitter, text: &str, piece: usize, expected: &[&str]) {
        let (mut start, mut end, mut found) = (0, 0, Vec::new());
        loop {
            match splitter.next(&text.as_bytes()[start..end], end == text.len()) {
                Some(length) => {
                    found.push(&text[start..start + length]);
                    start += length;
                }
                None if end == text.len() => break,
                None => end = (end + piece).min(text.len()),
            }
        }
        assert_eq!(found, expected, "{piece} bytes at once");
    }

    #[test]
    fn records_end_at_line_breaks_that_are_not_quoted() {
        for piece in [1, 2, 3, 100] {
            check(Splitter::plain(), "a\nb\"\n\nc", piece, &["a\n", "b\"\n", "\n", "c"]);
            check(Splitter::quoted(b'"'), "a,\"b\nc\"\"\n\"\nd\n", piece, &["a,\"b\nc\"\"\n\"\n", "d\n"]);
            check(Splitter::quoted(b'"'), "a\"\nb\nc\n", piece, &["a\"\n", "b\n", "c\n"]);
            check(Splitter::plain(), "", piece, &[]);
        }
    }
}
