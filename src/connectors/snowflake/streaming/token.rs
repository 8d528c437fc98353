//! Offset tokens: what a channel remembers of the last rows that it has committed. To Snowflake they are any text; to the
//! sink they say of which batch those rows were, and which part of it.

use crate::engine::Tick;

/// The first part of every token. What decides a batch's parts (the order of its rows, where it is cut) may only change
/// together with it.
const VERSION: &str = "t1";

/// The end of one part of a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Token {
    /// The generation of the target that the batch leads to.
    pub generation: u64,
    /// The tick that the batch leads from; 0 for the first one.
    pub from: Tick,
    /// The tick that it leads to.
    pub to: Tick,
    /// Which part, from 1.
    pub part: u64,
    /// Of how many.
    pub parts: u64,
}

impl Token {
    /// Reads a token; `None`: it is not a sink's.
    pub fn parse(text: &str) -> Option<Token> {
        let (version, numbers) = text.split_once('.')?;
        let numbers: Vec<u64> = numbers.split('.').map(|n| n.parse().ok()).collect::<Option<_>>()?;
        match numbers[..] {
            [generation, from, to, part, parts] if version == VERSION && (1..=parts).contains(&part) => {
                Some(Token { generation, from, to, part, parts })
            }
            _ => None,
        }
    }

    /// What the tokens of all parts of the batch begin with.
    pub fn batch(&self) -> String {
        format!("{VERSION}.{}.{}.{}.", self.generation, self.from, self.to)
    }

    /// Whether nothing of the batch comes after it.
    pub fn is_whole(&self) -> bool {
        self.part == self.parts
    }

    /// Whether both are of the same batch.
    pub fn same_batch(&self, other: &Token) -> bool {
        Token { part: other.part, ..*self } == *other
    }
}

impl std::fmt::Display for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}{}.{}", self.batch(), self.part, self.parts)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_read_as_they_are_written_and_others_are_not() {
        let token = Token { generation: 1, from: 0, to: 77, part: 2, parts: 3 };
        assert_eq!(token.to_string(), "t1.1.0.77.2.3");
        assert_eq!(Token::parse("t1.1.0.77.2.3"), Some(token));
        assert!(!token.is_whole() && Token { part: 3, ..token }.is_whole());
        assert!(
            token.same_batch(&Token { part: 3, ..token }) && !token.same_batch(&Token { to: 78, ..token })
        );
        for text in
            ["", "0", "t2.1.0.77.2.3", "t1.1.0.77.0.3", "t1.1.0.77.4.3", "t1.1.0.77.2", "t1.1.0.x.2.3"]
        {
            assert_eq!(Token::parse(text), None, "{text}");
        }
    }
}
