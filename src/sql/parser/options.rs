//! `(name = value, …)`: options of connections, sources, sinks and formats.

use datafusion::sql::sqlparser::tokenizer::Token;

use super::StatementParser;
use crate::declared::{Envelope, FormatSpec, OptionList, OptionValue};
use crate::error::{Error, Result, SqlState};
use crate::names::Name;
use crate::types::parse_interval;

/// Formats that connectors know.
const FORMATS: [&str; 8] = ["json", "avro", "protobuf", "csv", "text", "bytes", "parquet", "xml"];

/// What FORMAT says.
pub(super) struct FormatClause {
    /// The format.
    pub(super) format: FormatSpec,
    /// The connection to the registry that has its schemas.
    pub(super) registry: Option<Name>,
    /// The envelope that it says by the way.
    pub(super) envelope: Option<Envelope>,
}

impl StatementParser<'_> {
    /// `(name = value, …)`; may be empty.
    pub(super) fn options(&mut self) -> Result<OptionList> {
        self.expect(&Token::LParen)?;
        let mut options: OptionList = Vec::new();
        if self.p.consume_token(&Token::RParen) {
            return Ok(options);
        }
        loop {
            let position = self.position();
            let name = self.option_name()?;
            let value = match self.p.consume_token(&Token::Eq) {
                true => self.option_value()?,
                // A name alone switches something on, as in `(header)`.
                false => OptionValue::Literal("true".to_string()),
            };
            if options.iter().any(|(n, _)| *n == name) {
                return Err(Error::new(
                    SqlState::SYNTAX_ERROR,
                    format!("option \"{name}\" is given more than once"),
                )
                .at(position));
            }
            options.push((name, value));
            if !self.p.consume_token(&Token::Comma) {
                break;
            }
        }
        self.expect(&Token::RParen)?;
        Ok(options)
    }

    /// `properties.bootstrap.server`, lower case.
    fn option_name(&mut self) -> Result<String> {
        let mut name = String::new();
        loop {
            match &self.p.peek_token_ref().token {
                Token::Word(w) => name.push_str(&w.value.to_ascii_lowercase()),
                Token::SingleQuotedString(s) => name.push_str(&s.to_ascii_lowercase()),
                _ => return Err(self.unexpected()),
            }
            self.p.advance_token();
            if !self.p.consume_token(&Token::Period) {
                return Ok(name);
            }
            name.push('.');
        }
    }

    fn option_value(&mut self) -> Result<OptionValue> {
        if self.peek_word().as_deref() == Some("secret")
            && matches!(self.p.peek_nth_token_ref(1).token, Token::Word(_))
        {
            self.p.advance_token();
            return Ok(OptionValue::Secret(self.name()?.to_string()));
        }
        if self.word("interval") {
            return Ok(OptionValue::Literal(self.string()?));
        }
        let negative = self.p.consume_token(&Token::Minus);
        let text = match &self.p.peek_token_ref().token {
            Token::Number(n, _) => format!("{}{n}", if negative { "-" } else { "" }),
            _ if negative => return Err(self.unexpected()),
            Token::Word(w) if w.quote_style.is_some() => w.value.clone(),
            Token::Word(w) => w.value.to_ascii_lowercase(),
            _ => return Ok(OptionValue::Literal(self.string()?)),
        };
        self.p.advance_token();
        Ok(OptionValue::Literal(text))
    }

    /// FORMAT, behind its keyword; it may say the envelope, too (`UPSERT ENCODE JSON`, `DEBEZIUM`, `PLAIN ENCODE CSV`).
    pub(super) fn format(&mut self) -> Result<FormatClause> {
        let envelope = match self.peek_word().as_deref() {
            Some("plain") => Some(Envelope::None),
            Some("upsert") => Some(Envelope::Upsert),
            Some("debezium") => Some(Envelope::Debezium),
            _ => None,
        };
        let mut name = "json".to_string();
        if envelope.is_some() {
            self.p.advance_token();
            if self.word("encode") {
                name = self.format_name()?;
            }
        } else {
            name = self.format_name()?;
        }
        let mut options = match self.p.peek_token_ref().token {
            Token::LParen => self.options()?,
            _ => Vec::new(),
        };
        let mut registry = None;
        if self.word("using") {
            // Others say CONFLUENT SCHEMA REGISTRY: it is its protocol.
            self.word("confluent");
            self.expect_word("schema")?;
            self.expect_word("registry")?;
            self.expect_word("connection")?;
            registry = Some(self.name()?);
            if self.p.peek_token_ref().token == Token::LParen {
                let more = self.options()?;
                no_repetition(&options, &more)?;
                options.extend(more);
            }
        }
        Ok(FormatClause { format: FormatSpec { name, options }, registry, envelope })
    }

    fn format_name(&mut self) -> Result<String> {
        match self.peek_word() {
            Some(word) if FORMATS.contains(&word.as_str()) => {
                self.p.advance_token();
                Ok(word)
            }
            _ => Err(self
                .unexpected()
                .with_hint(format!("Known formats: {}.", FORMATS.map(str::to_ascii_uppercase).join(", ")))),
        }
    }

    /// ENVELOPE, behind its keyword.
    pub(super) fn envelope(&mut self) -> Result<Envelope> {
        let envelope = match self.peek_word().as_deref() {
            Some("none" | "append") => Envelope::None,
            Some("upsert") => Envelope::Upsert,
            Some("debezium") => Envelope::Debezium,
            _ => return Err(self.unexpected().with_hint("Known envelopes: NONE, UPSERT, DEBEZIUM.")),
        };
        self.p.advance_token();
        Ok(envelope)
    }

    /// A duration in microseconds, as text (`'1 s'`) or INTERVAL literal.
    pub(super) fn duration_micros(&mut self) -> Result<u64> {
        let position = self.position();
        self.word("interval");
        let text = self.string()?;
        duration_of(&text).map_err(|e| e.at(position))
    }
}

/// A duration as microseconds: any interval of days or less that is not negative.
pub(super) fn duration_of(text: &str) -> Result<u64> {
    let interval = parse_interval(text)?;
    let micros = i64::from(interval.days)
        .checked_mul(86_400_000_000)
        .and_then(|d| d.checked_add(interval.nanoseconds / 1000));
    match micros.map(u64::try_from) {
        Some(Ok(micros)) if interval.months == 0 => Ok(micros),
        _ => Err(Error::new(SqlState::INVALID_PARAMETER_VALUE, format!("\"{text}\" is not a duration"))),
    }
}

/// No option may be in both lists.
pub(super) fn no_repetition(options: &OptionList, more: &OptionList) -> Result<()> {
    match more.iter().find(|(name, _)| options.iter().any(|(n, _)| n == name)) {
        None => Ok(()),
        Some((name, _)) => {
            Err(Error::new(SqlState::SYNTAX_ERROR, format!("option \"{name}\" is given more than once")))
        }
    }
}

/// Takes an option out of a list.
pub(super) fn take(options: &mut OptionList, name: &str) -> Option<OptionValue> {
    let i = options.iter().position(|(n, _)| n == name)?;
    Some(options.remove(i).1)
}

/// Takes an option that is on or off.
pub(super) fn take_bool(options: &mut OptionList, name: &str) -> Result<Option<bool>> {
    let Some(value) = take(options, name) else { return Ok(None) };
    match &value {
        OptionValue::Literal(text) => match text.to_ascii_lowercase().as_str() {
            "true" | "on" | "yes" | "1" => Ok(Some(true)),
            "false" | "off" | "no" | "0" => Ok(Some(false)),
            _ => Err(Error::new(
                SqlState::INVALID_PARAMETER_VALUE,
                format!("option \"{name}\" must be true or false, not \"{text}\""),
            )),
        },
        OptionValue::Secret(_) => Err(Error::new(
            SqlState::INVALID_PARAMETER_VALUE,
            format!("option \"{name}\" must be true or false"),
        )),
    }
}

/// Nothing may be left over.
pub(super) fn finish(options: &OptionList, of: &str, known: &[&str]) -> Result<()> {
    match options.first() {
        None => Ok(()),
        Some((name, _)) => {
            Err(Error::new(SqlState::INVALID_PARAMETER_VALUE, format!("unknown option \"{name}\" of {of}"))
                .with_hint(format!("Known options: {}.", known.join(", "))))
        }
    }
}
