//! Places in a statement's text: lines and columns to bytes, characters and error positions.

use datafusion::sql::sqlparser::tokenizer::{Location, Span, Token, TokenWithSpan};

/// A text whose places are asked for.
#[derive(Debug, Clone)]
pub struct SourceText<'a> {
    text: &'a str,
    /// Byte and character at which each line starts.
    lines: Vec<(usize, u32)>,
}

impl<'a> SourceText<'a> {
    /// Remembers where the lines of `text` start.
    pub fn new(text: &'a str) -> Self {
        let mut lines = vec![(0, 0)];
        let mut chars = 0;
        for (byte, c) in text.char_indices() {
            chars += 1;
            if c == '\n' {
                lines.push((byte + 1, chars));
            }
        }
        SourceText { text, lines }
    }

    /// The text.
    pub fn text(&self) -> &'a str {
        self.text
    }

    /// The byte at which a place is; the end of the text for places beyond it.
    pub fn byte(&self, location: Location) -> usize {
        let Some((line_byte, _)) = self.line(location) else { return self.text.len() };
        let column = usize::try_from(location.column.saturating_sub(1)).unwrap_or(usize::MAX);
        self.text[line_byte..].char_indices().nth(column).map_or(self.text.len(), |(i, _)| line_byte + i)
    }

    /// How many characters stand before a place.
    pub fn chars_before(&self, location: Location) -> u32 {
        match self.line(location) {
            Some((_, chars)) => chars + u32::try_from(location.column.saturating_sub(1)).unwrap_or(u32::MAX),
            None => self.text.chars().count().try_into().unwrap_or(u32::MAX),
        }
    }

    /// A place as errors tell it: 1-based, in characters.
    pub fn position(&self, location: Location) -> u32 {
        self.chars_before(location).saturating_add(1)
    }

    /// Where a token starts, as errors tell it.
    pub fn position_of(&self, token: &TokenWithSpan) -> u32 {
        match token.token {
            Token::EOF => self.position(Location::empty()),
            _ => self.position(token.span.start),
        }
    }

    /// The text of a span.
    pub fn slice(&self, span: Span) -> &'a str {
        let start = self.byte(span.start);
        &self.text[start..self.byte(span.end).max(start)]
    }

    fn line(&self, location: Location) -> Option<(usize, u32)> {
        let index = usize::try_from(location.line).ok()?.checked_sub(1)?;
        self.lines.get(index).copied()
    }
}

/// The place that a message of sqlparser ends with: `… at Line: 1, Column: 5`.
pub(super) fn location_in(message: &str) -> Option<Location> {
    let (_, place) = message.rsplit_once(" at Line: ")?;
    let (line, column) = place.split_once(", Column: ")?;
    let digits: String = column.chars().take_while(char::is_ascii_digit).collect();
    Some(Location::new(line.parse().ok()?, digits.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_count_characters_not_bytes() {
        let text = SourceText::new("é x\nüber y");
        assert_eq!(text.byte(Location::new(1, 3)), 3);
        assert_eq!(text.position(Location::new(1, 3)), 3);
        assert_eq!(text.position(Location::new(2, 6)), 10);
        assert_eq!(&text.text()[text.byte(Location::new(2, 6))..], "y");
        assert_eq!(text.byte(Location::empty()), text.text().len());
        assert_eq!(location_in("Expected: x, found: y at Line: 2, Column: 7"), Some(Location::new(2, 7)));
        assert_eq!(location_in("nothing"), None);
    }
}
