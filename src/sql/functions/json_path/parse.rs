//! The text of a SQL/JSON path as a tree.

use crate::error::{Error, Result, SqlState};
use crate::types::Document;

/// How deep expressions may nest.
const DEPTH_MAX: usize = 64;

/// A path as it was written.
#[derive(Debug)]
pub(super) struct Path {
    pub strict: bool,
    pub expr: Node,
}

/// What gives values.
#[derive(Debug)]
pub(super) enum Node {
    Root,
    Current,
    Literal(Document),
    /// What steps lead to from a start.
    Steps(Box<Node>, Vec<Step>),
    Arithmetic(char, Box<Node>, Box<Node>),
    Negative(Box<Node>),
    Compare(&'static str, Box<Node>, Box<Node>),
    And(Box<Node>, Box<Node>),
    Or(Box<Node>, Box<Node>),
    Not(Box<Node>),
    Exists(Box<Node>),
    StartsWith(Box<Node>, Box<Node>),
    IsUnknown(Box<Node>),
}

/// What leads from a value to others.
#[derive(Debug)]
pub(super) enum Step {
    Member(String),
    AnyMember,
    Elements(Vec<(Bound, Option<Bound>)>),
    AnyElement,
    Filter(Node),
    Method(String),
}

/// A subscript: so many from the start, or from the last.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bound {
    pub from_last: bool,
    pub offset: i64,
}

struct Parser<'a> {
    text: &'a str,
    rest: &'a str,
    depth: usize,
}

impl Path {
    /// Reads a path.
    ///
    /// # Errors
    /// 42601 where it ends to make sense, 0A000 for what is refused, 54001 for nesting too deep.
    pub fn parse(text: &str) -> Result<Path> {
        let mut parser = Parser { text, rest: text, depth: 0 };
        let strict = parser.word("strict");
        if !strict {
            parser.word("lax");
        }
        let expr = parser.or()?;
        parser.space();
        if !parser.rest.is_empty() {
            return Err(parser.error());
        }
        Ok(Path { strict, expr })
    }
}

impl Parser<'_> {
    fn error(&self) -> Error {
        Error::new(
            SqlState::SYNTAX_ERROR,
            match self.rest.is_empty() {
                true => "syntax error at end of jsonpath input".to_string(),
                false => {
                    let near: String = self.rest.chars().take(20).collect();
                    format!("syntax error at or near \"{near}\" of jsonpath input \"{}\"", self.text)
                }
            },
        )
    }

    fn space(&mut self) {
        self.rest = self.rest.trim_start();
    }

    fn eat(&mut self, symbol: &str) -> bool {
        self.space();
        match self.rest.strip_prefix(symbol) {
            Some(rest) => {
                self.rest = rest;
                true
            }
            None => false,
        }
    }

    fn expect(&mut self, symbol: &str) -> Result<()> {
        if self.eat(symbol) { Ok(()) } else { Err(self.error()) }
    }

    /// A keyword, which must not go on as a name.
    fn word(&mut self, word: &str) -> bool {
        self.space();
        let is_name = |c: char| c.is_alphanumeric() || c == '_';
        match self.rest.strip_prefix(word) {
            Some(rest) if !rest.starts_with(is_name) => {
                self.rest = rest;
                true
            }
            _ => false,
        }
    }

    fn name(&mut self) -> Option<String> {
        self.space();
        let end = self.rest.find(|c: char| !(c.is_alphanumeric() || c == '_')).unwrap_or(self.rest.len());
        let (name, rest) = self.rest.split_at(end);
        if name.is_empty() || name.starts_with(|c: char| c.is_ascii_digit()) {
            return None;
        }
        self.rest = rest;
        Some(name.to_string())
    }

    fn string(&mut self) -> Result<Option<String>> {
        self.space();
        if !self.rest.starts_with('"') {
            return Ok(None);
        }
        let mut escaped = false;
        for (at, c) in self.rest.char_indices().skip(1) {
            match c {
                '"' if !escaped => {
                    let quoted = &self.rest[..=at];
                    let text = serde_json::from_str(quoted).map_err(|_| self.error())?;
                    self.rest = &self.rest[at + 1..];
                    return Ok(Some(text));
                }
                '\\' => escaped = !escaped,
                _ => escaped = false,
            }
        }
        Err(self.error())
    }

    fn nested<T>(&mut self, parse: impl FnOnce(&mut Self) -> Result<T>) -> Result<T> {
        self.depth += 1;
        if self.depth > DEPTH_MAX {
            return Err(Error::new(
                SqlState("54001"),
                format!("a path nests deeper than {DEPTH_MAX} levels"),
            ));
        }
        let parsed = parse(self);
        self.depth -= 1;
        parsed
    }

    fn or(&mut self) -> Result<Node> {
        self.nested(|p| {
            let mut left = p.and()?;
            while p.eat("||") {
                left = Node::Or(Box::new(left), Box::new(p.and()?));
            }
            Ok(left)
        })
    }

    fn and(&mut self) -> Result<Node> {
        let mut left = self.predicate()?;
        while self.eat("&&") {
            left = Node::And(Box::new(left), Box::new(self.predicate()?));
        }
        Ok(left)
    }

    fn predicate(&mut self) -> Result<Node> {
        self.space();
        if self.rest.starts_with('!') && !self.rest.starts_with("!=") {
            self.expect("!")?;
            return self.nested(|p| Ok(Node::Not(Box::new(p.predicate()?))));
        }
        let left = self.sum()?;
        for (symbol, operator) in
            [("==", "="), ("!=", "<>"), ("<>", "<>"), ("<=", "<="), (">=", ">="), ("<", "<"), (">", ">")]
        {
            if self.eat(symbol) {
                return Ok(Node::Compare(operator, Box::new(left), Box::new(self.sum()?)));
            }
        }
        if self.word("starts") {
            if !self.word("with") {
                return Err(self.error());
            }
            return Ok(Node::StartsWith(Box::new(left), Box::new(self.sum()?)));
        }
        if self.word("is") {
            return if self.word("unknown") {
                Ok(Node::IsUnknown(Box::new(left)))
            } else {
                Err(self.error())
            };
        }
        if self.word("like_regex") {
            return Err(Error::unsupported("like_regex in a JSON path"));
        }
        Ok(left)
    }

    fn sum(&mut self) -> Result<Node> {
        let mut left = self.product()?;
        loop {
            let operator = if self.eat("+") {
                '+'
            } else if self.eat("-") {
                '-'
            } else {
                return Ok(left);
            };
            left = Node::Arithmetic(operator, Box::new(left), Box::new(self.product()?));
        }
    }

    fn product(&mut self) -> Result<Node> {
        let mut left = self.unary()?;
        loop {
            let operator = if self.eat("*") {
                '*'
            } else if self.eat("/") {
                '/'
            } else if self.eat("%") {
                '%'
            } else {
                return Ok(left);
            };
            left = Node::Arithmetic(operator, Box::new(left), Box::new(self.unary()?));
        }
    }

    fn unary(&mut self) -> Result<Node> {
        if self.eat("-") {
            return self.nested(|p| Ok(Node::Negative(Box::new(p.unary()?))));
        }
        if self.eat("+") {
            return self.nested(Self::unary);
        }
        let start = self.primary()?;
        let steps = self.steps()?;
        Ok(if steps.is_empty() { start } else { Node::Steps(Box::new(start), steps) })
    }

    fn primary(&mut self) -> Result<Node> {
        self.space();
        if let Some(text) = self.string()? {
            return Ok(Node::Literal(Document::String(text)));
        }
        if self.eat("(") {
            let inner = self.or()?;
            self.expect(")")?;
            return Ok(inner);
        }
        if self.eat("@") {
            return Ok(Node::Current);
        }
        if self.eat("$") {
            return match self.rest.starts_with(|c: char| c.is_alphanumeric() || c == '_' || c == '"') {
                true => Err(Error::unsupported("a variable in a JSON path")),
                false => Ok(Node::Root),
            };
        }
        for (word, value) in
            [("true", Document::Bool(true)), ("false", Document::Bool(false)), ("null", Document::Null)]
        {
            if self.word(word) {
                return Ok(Node::Literal(value));
            }
        }
        if self.word("exists") {
            self.expect("(")?;
            let inner = self.or()?;
            self.expect(")")?;
            return Ok(Node::Exists(Box::new(inner)));
        }
        let number = |c: char| c.is_ascii_digit() || c == '.';
        let end = self.rest.find(|c| !number(c)).unwrap_or(self.rest.len());
        let (digits, rest) = self.rest.split_at(end);
        if digits.parse::<f64>().is_err() {
            return Err(self.error());
        }
        self.rest = rest;
        Ok(Node::Literal(Document::Number(digits.to_string())))
    }

    fn steps(&mut self) -> Result<Vec<Step>> {
        let mut steps = Vec::new();
        loop {
            if self.eat("?") {
                self.expect("(")?;
                let condition = self.or()?;
                self.expect(")")?;
                steps.push(Step::Filter(condition));
            } else if self.eat("[") {
                steps.push(self.subscripts()?);
            } else if self.eat(".") {
                if self.eat("**") {
                    return Err(Error::unsupported(".** in a JSON path"));
                }
                if self.eat("*") {
                    steps.push(Step::AnyMember);
                    continue;
                }
                if let Some(name) = self.string()? {
                    steps.push(Step::Member(name));
                    continue;
                }
                let name = self.name().ok_or_else(|| self.error())?;
                if self.eat("(") {
                    self.expect(")")?;
                    let known = ["type", "size", "double", "abs", "floor", "ceiling"];
                    if !known.contains(&name.as_str()) {
                        return Err(Error::unsupported(format!(".{name}() in a JSON path")));
                    }
                    steps.push(Step::Method(name));
                } else {
                    steps.push(Step::Member(name));
                }
            } else {
                return Ok(steps);
            }
        }
    }

    fn subscripts(&mut self) -> Result<Step> {
        if self.eat("*") {
            self.expect("]")?;
            return Ok(Step::AnyElement);
        }
        let mut all = Vec::new();
        loop {
            let from = self.bound()?;
            let to = if self.word("to") { Some(self.bound()?) } else { None };
            all.push((from, to));
            if !self.eat(",") {
                break;
            }
        }
        self.expect("]")?;
        Ok(Step::Elements(all))
    }

    fn bound(&mut self) -> Result<Bound> {
        let from_last = self.word("last");
        let sign = if self.eat("-") {
            -1
        } else if from_last && !self.eat("+") {
            return Ok(Bound { from_last, offset: 0 });
        } else {
            1
        };
        self.space();
        let end = self.rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(self.rest.len());
        let (digits, rest) = self.rest.split_at(end);
        let number: i64 = digits.parse().map_err(|_| self.error())?;
        self.rest = rest;
        Ok(Bound { from_last, offset: sign * number })
    }
}
