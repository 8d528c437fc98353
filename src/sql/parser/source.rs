//! CREATE CONNECTION, CREATE SOURCE and CREATE SINK.

use datafusion::sql::sqlparser::tokenizer::Token;

use super::StatementParser;
use super::create::ColumnList;
use super::options::{finish, no_repetition, take, take_bool};
use crate::declared::{Envelope, Include, OnError, OnSchemaChange, OptionValue};
use crate::error::{Error, Result, SqlState};
use crate::names::{Name, quote_literal};
use crate::sql::ast::{CreateConnection, CreateSink, CreateSource, Statement};

/// What sources can be from.
const SOURCES: [&str; 11] =
    ["kafka", "postgres", "mysql", "files", "lines", "http", "mqtt", "webhook", "nexmark", "shop", "datagen"];

impl StatementParser<'_> {
    /// Behind CREATE CONNECTION.
    pub(super) fn create_connection(&mut self) -> Result<Statement> {
        let if_not_exists = self.if_not_exists();
        let name = self.name()?;
        self.expect_word("to")?;
        let kind = self.connection_kind()?;
        let options = match self.p.peek_token_ref().token {
            Token::LParen => self.options()?,
            _ => Vec::new(),
        };
        let mut validate = true;
        if self.word("with") {
            let mut with = self.options()?;
            validate = take_bool(&mut with, "validate")?.unwrap_or(true);
            finish(&with, "CREATE CONNECTION", &["validate"])?;
        }
        Ok(Statement::CreateConnection(CreateConnection { name, if_not_exists, kind, options, validate }))
    }

    fn connection_kind(&mut self) -> Result<String> {
        let position = self.position();
        for (words, kind) in [
            (&["kafka"][..], "kafka"),
            (&["postgres"], "postgres"),
            (&["postgresql"], "postgres"),
            (&["mysql"], "mysql"),
            (&["snowflake"], "snowflake"),
            (&["redshift"], "redshift"),
            (&["object", "store"], "object store"),
            (&["schema", "registry"], "schema registry"),
            (&["confluent", "schema", "registry"], "schema registry"),
        ] {
            if self.words(words) {
                return Ok(kind.to_string());
            }
        }
        for words in [
            &["sql", "server"][..],
            &["mongodb"],
            &["ssh", "tunnel"],
            &["aws"],
            &["iceberg", "catalog"],
            &["mqtt"],
            &["kinesis"],
            &["pulsar"],
        ] {
            if self.words(words) {
                let kind = words.join(" ").to_ascii_uppercase();
                return Err(Error::unsupported(format!("CONNECTION TO {kind}")).at(position));
            }
        }
        Err(self.unexpected().with_hint(
            "Known connections: KAFKA, POSTGRES, MYSQL, SNOWFLAKE, REDSHIFT, OBJECT STORE, SCHEMA REGISTRY.",
        ))
    }

    /// Behind CREATE SOURCE.
    pub(super) fn create_source(&mut self) -> Result<Statement> {
        let if_not_exists = self.if_not_exists();
        let name = self.name()?;
        let ColumnList { columns, key, checks, watermark } = match self.p.peek_token_ref().token {
            Token::LParen => self.column_list()?,
            _ => ColumnList::default(),
        };
        if !checks.is_empty() {
            return Err(Error::unsupported("CHECK constraints of a source"));
        }
        let mut source = CreateSource {
            name,
            if_not_exists,
            columns,
            key,
            watermark,
            kind: String::new(),
            connection: None,
            options: Vec::new(),
            all_tables: false,
            format: None,
            registry: None,
            envelope: Envelope::None,
            includes: Vec::new(),
            retain: true,
            on_error: OnError::default(),
            check: None,
            on_schema_change: OnSchemaChange::default(),
        };
        let mut envelope = None;
        loop {
            if self.word("from") {
                if !source.kind.is_empty() {
                    return Err(self.unexpected());
                }
                (source.kind, source.connection) = self.endpoint(&SOURCES)?;
                if self.p.peek_token_ref().token == Token::LParen {
                    let options = self.options()?;
                    source.options.extend(options);
                }
            } else if self.words(&["for", "all", "tables"]) {
                source.all_tables = true;
            } else if self.word("with") {
                self.source_with(&mut source)?;
            } else if self.word("format") {
                let said = self.format()?;
                (source.format, source.registry) = (Some(said.format), said.registry);
                envelope = envelope.or(said.envelope);
            } else if self.word("include") {
                source.includes.extend(self.comma_separated(Self::include)?);
            } else if self.word("envelope") {
                envelope = Some(self.envelope()?);
            } else if self.words(&["on", "schema", "change"]) {
                source.on_schema_change = self.schema_change_policy()?;
            } else if source.check.is_none() && self.word("check") {
                source.check = Some(self.request_check()?);
            } else {
                break;
            }
        }
        if source.kind.is_empty() {
            let known = SOURCES.map(str::to_ascii_uppercase).join(", ");
            return Err(self.unexpected().with_hint(format!("A source needs FROM and one of {known}.")));
        }
        source.envelope = envelope.unwrap_or_default();
        if source.on_schema_change != OnSchemaChange::default() {
            check_follows_schema_changes(&source.kind)?;
        }
        if source.kind == "webhook" && source.on_error == OnError::Fail {
            return Err(Error::unsupported("on_error = 'fail' of a WEBHOOK source"));
        }
        if source.check.is_some() && source.kind != "webhook" {
            return Err(Error::unsupported(format!(
                "CHECK of a {} source",
                source.kind.to_ascii_uppercase()
            )));
        }
        if source.kind == "kafka" && source.format.is_none() {
            return Err(Error::new(SqlState::SYNTAX_ERROR, "a KAFKA source needs a FORMAT")
                .with_hint("For example: FORMAT JSON."));
        }
        Ok(Statement::CreateSource(Box::new(source)))
    }

    /// `KAFKA [CONNECTION k]`, behind FROM or INTO.
    fn endpoint(&mut self, known: &[&str]) -> Result<(String, Option<Name>)> {
        let position = self.position();
        let Some(word) = self.peek_word() else { return Err(self.unexpected()) };
        let kind = match word.as_str() {
            "postgresql" => "postgres",
            "load" if self.peek_word_at(1).as_deref() == Some("generator") => {
                return Err(Error::unsupported("LOAD GENERATOR")
                    .at(position)
                    .with_hint("Use NEXMARK, SHOP or DATAGEN."));
            }
            other => other,
        };
        if !known.contains(&kind) {
            return match kind {
                "mysql" | "files" | "webhook" | "http" | "mqtt" | "lines" | "redshift" | "postgres"
                | "iceberg" | "kinesis" | "pulsar" | "kafka" | "snowflake" => {
                    let role = if known.contains(&"nexmark") { "SOURCE FROM" } else { "SINK INTO" };
                    let error = Error::unsupported(format!("{role} {}", kind.to_ascii_uppercase()));
                    let error = match (role, kind) {
                        ("SINK INTO", "iceberg") => {
                            error.with_hint("Parquet files can be kept: INTO FILES … FORMAT PARQUET.")
                        }
                        _ => error,
                    };
                    Err(error.at(position))
                }
                _ => Err(self.unexpected().with_hint(format!(
                    "Known here: {}.",
                    known.iter().map(|k| k.to_ascii_uppercase()).collect::<Vec<_>>().join(", ")
                ))),
            };
        }
        let kind = kind.to_string();
        self.p.advance_token();
        let connection = if self.word("connection") { Some(self.name()?) } else { None };
        Ok((kind, connection))
    }

    /// Behind ON SCHEMA CHANGE.
    pub(super) fn schema_change_policy(&mut self) -> Result<OnSchemaChange> {
        for (name, policy) in OnSchemaChange::NAMES {
            if self.word(name) {
                return Ok(policy);
            }
        }
        Err(self.unexpected().with_hint("ON SCHEMA CHANGE EVOLVE, PAUSE or IGNORE."))
    }

    /// `key AS k`
    fn include(&mut self) -> Result<Include> {
        let Some(what) = self.peek_word() else { return Err(self.unexpected()) };
        const KNOWN: [&str; 9] =
            ["key", "topic", "partition", "offset", "timestamp", "headers", "header", "path", "line"];
        if !KNOWN.contains(&what.as_str()) {
            return Err(self.unexpected().with_hint(
                "A source can include key, topic, partition, offset, timestamp, headers and header 'name', and one of files path, line and timestamp.",
            ));
        }
        self.p.advance_token();
        if what == "header" {
            let name = self.string()?;
            let column = if self.word("as") { self.ident()? } else { name.clone() };
            return Ok(Include { what: format!("header {}", quote_literal(&name)), column });
        }
        let column = if self.word("as") { self.ident()? } else { what.clone() };
        Ok(Include { what, column })
    }

    /// WITH of a source: its own options, or the whole connector in the spelling of other systems.
    fn source_with(&mut self, source: &mut CreateSource) -> Result<()> {
        let mut options = self.options()?;
        if let Some(retain) = take_bool(&mut options, "retain")? {
            source.retain = retain;
        }
        if let Some(value) = take(&mut options, "on_error") {
            let known = OnError::NAMES.iter().find(
                |(name, _)| matches!(&value, OptionValue::Literal(text) if text.eq_ignore_ascii_case(name)),
            );
            let (_, on_error) = known.ok_or_else(|| {
                let message = "option \"on_error\" of a source must be 'store', 'skip' or 'fail'";
                Error::new(SqlState::INVALID_PARAMETER_VALUE, message)
            })?;
            source.on_error = *on_error;
        }
        if let Some(connector) = take(&mut options, "connector") {
            let OptionValue::Literal(connector) = connector else {
                return Err(Error::new(
                    SqlState::INVALID_PARAMETER_VALUE,
                    "option \"connector\" must be a name",
                ));
            };
            let kind = match connector.as_str() {
                known if SOURCES.contains(&known) => known,
                "postgres-cdc" => "postgres",
                "mysql-cdc" => "mysql",
                other => return Err(Error::unsupported(format!("connector \"{other}\""))),
            };
            if !source.kind.is_empty() && source.kind != kind {
                return Err(Error::new(
                    SqlState::SYNTAX_ERROR,
                    format!("the source is FROM {} and its connector is \"{connector}\"", source.kind),
                ));
            }
            source.kind = kind.to_string();
            options.iter_mut().for_each(|(name, _)| translate(name));
        }
        source.options.extend(options);
        Ok(())
    }

    /// Behind CREATE SINK.
    pub(super) fn create_sink(&mut self) -> Result<Statement> {
        let if_not_exists = self.if_not_exists();
        let name = self.name()?;
        self.expect_word("from")?;
        let from = self.name()?;
        self.expect_word("into")?;
        let (kind, connection) =
            self.endpoint(&["snowflake", "redshift", "postgres", "kafka", "files", "webhook"])?;
        let mut sink = CreateSink {
            name,
            if_not_exists,
            from,
            kind,
            connection,
            options: match self.p.peek_token_ref().token {
                Token::LParen => self.options()?,
                _ => Vec::new(),
            },
            key: Vec::new(),
            format: None,
            registry: None,
            envelope: Envelope::None,
        };
        let mut envelope = None;
        loop {
            if self.word("key") {
                sink.key = self.ident_list()?;
            } else if self.word("format") {
                let said = self.format()?;
                (sink.format, sink.registry) = (Some(said.format), said.registry);
                envelope = envelope.or(said.envelope);
            } else if self.word("envelope") {
                envelope = Some(self.envelope()?);
            } else if self.word("with") {
                let with = self.options()?;
                no_repetition(&sink.options, &with)?;
                sink.options.extend(with);
            } else {
                break;
            }
        }
        sink.envelope = envelope.unwrap_or_default();
        Ok(Statement::CreateSink(Box::new(sink)))
    }
}

/// Refuses ON SCHEMA CHANGE of a source whose tables are not those of a database.
pub fn check_follows_schema_changes(kind: &str) -> Result<()> {
    match kind {
        "postgres" | "mysql" => Ok(()),
        other => {
            Err(Error::unsupported(format!("ON SCHEMA CHANGE of a {} source", other.to_ascii_uppercase())))
        }
    }
}

/// Option names of the `WITH (connector = …)` spelling to ours.
fn translate(name: &mut String) {
    match name.as_str() {
        "properties.bootstrap.server" | "properties.bootstrap.servers" => *name = "brokers".to_string(),
        "scan.startup.mode" => *name = "start".to_string(),
        _ => {
            if let Some(rest) = name.strip_prefix("properties.") {
                *name = rest.to_string();
            }
        }
    }
}
