//! SHOW CREATE: the statement that makes an object, regenerated from what the catalog holds.

use super::{Catalog, Check, Column, Entry, Object, ObjectId, Watermark};
use crate::declared::{Envelope, FormatSpec, OnError, OnSchemaChange, OptionList, OptionValue};
use crate::names::{quote, quote_literal};

impl Catalog {
    /// The statement that makes this object. A secret's value is never in it.
    pub fn create_statement(&self, entry: &Entry) -> String {
        let name = self.name_of(entry.id);
        match &entry.object {
            Object::Schema => format!("CREATE SCHEMA {name}"),
            Object::Secret(_) => format!("CREATE SECRET {name} AS '********'"),
            Object::Connection(c) => {
                let mut sql = format!("CREATE CONNECTION {name} TO {}", c.kind.to_ascii_uppercase());
                push_options(&mut sql, &c.options);
                sql
            }
            Object::Table(t) => match &t.source {
                Some((source, reference)) => format!(
                    "CREATE TABLE {name} FROM SOURCE {} (REFERENCE {reference})",
                    self.name_of(*source)
                ),
                None => {
                    let columns = column_list(&t.columns, &t.key, &t.checks, t.watermark.as_ref());
                    let append_only = if t.append_only { " APPEND ONLY" } else { "" };
                    format!("CREATE TABLE {name} {columns}{append_only}")
                }
            },
            Object::Source(_) => self.create_source(entry),
            Object::View(v) => format!("CREATE VIEW {name}{} AS {}", names(&v.columns), v.query),
            Object::MaterializedView(v) => {
                format!("CREATE MATERIALIZED VIEW {name}{} AS {}", names(&v.columns), v.definition())
            }
            Object::Sink(_) => self.create_sink(entry),
            Object::Index(i) => format!(
                "CREATE INDEX {} ON {} ({})",
                quote(&entry.name),
                self.name_of(i.on),
                i.columns.iter().map(|c| quote(c)).collect::<Vec<_>>().join(", ")
            ),
        }
    }

    /// An object's name as SQL: with its schema, unless that is `public`.
    fn name_of(&self, id: ObjectId) -> String {
        match self.get(id) {
            Some(entry) if entry.schema == ObjectId::PUBLIC => quote(&entry.name),
            Some(entry) => self.qualified(entry).to_string(),
            None => "?".to_string(),
        }
    }

    fn push_endpoint(
        &self,
        sql: &mut String,
        kind: &str,
        connection: Option<ObjectId>,
        options: &OptionList,
    ) {
        sql.push_str(&kind.to_ascii_uppercase());
        if let Some(connection) = connection {
            sql.push_str(" CONNECTION ");
            sql.push_str(&self.name_of(connection));
        }
        push_options(sql, options);
    }

    fn push_format(&self, sql: &mut String, format: Option<&FormatSpec>, registry: Option<ObjectId>) {
        let Some(format) = format else { return };
        sql.push_str(" FORMAT ");
        sql.push_str(&format.name.to_ascii_uppercase());
        push_options(sql, &format.options);
        if let Some(registry) = registry {
            sql.push_str(" USING SCHEMA REGISTRY CONNECTION ");
            sql.push_str(&self.name_of(registry));
        }
    }

    fn create_source(&self, entry: &Entry) -> String {
        let Object::Source(s) = &entry.object else { return String::new() };
        let mut sql = format!("CREATE SOURCE {}", self.name_of(entry.id));
        let declared = &s.columns[..s.columns.len().saturating_sub(s.includes.len())];
        if !declared.is_empty() {
            sql.push(' ');
            sql.push_str(&column_list(
                declared,
                if s.key_declared { &s.key } else { &[] },
                &[],
                s.watermark.as_ref(),
            ));
        }
        sql.push_str(" FROM ");
        self.push_endpoint(&mut sql, &s.kind, s.connection, &s.options);
        if s.all_tables {
            sql.push_str(" FOR ALL TABLES");
        }
        self.push_format(&mut sql, s.format.as_ref(), s.registry);
        if !s.includes.is_empty() {
            let list: Vec<_> =
                s.includes.iter().map(|i| format!("{} AS {}", i.what, quote(&i.column))).collect();
            sql.push_str(&format!(" INCLUDE {}", list.join(", ")));
        }
        push_envelope(&mut sql, s.envelope);
        if let Some(check) = &s.check {
            sql.push_str(&format!(" CHECK ({check})"));
        }
        if s.on_schema_change != OnSchemaChange::default() {
            sql.push_str(&format!(" ON SCHEMA CHANGE {}", s.on_schema_change.name().to_ascii_uppercase()));
        }
        let mut with = Vec::new();
        if !s.retain {
            with.push("retain = false".to_string());
        }
        if s.on_error != OnError::default() {
            with.push(format!("on_error = '{}'", s.on_error.name()));
        }
        if !with.is_empty() {
            sql.push_str(&format!(" WITH ({})", with.join(", ")));
        }
        sql
    }

    fn create_sink(&self, entry: &Entry) -> String {
        let Object::Sink(s) = &entry.object else { return String::new() };
        let mut sql = format!("CREATE SINK {} FROM {} INTO ", self.name_of(entry.id), self.name_of(s.from));
        self.push_endpoint(&mut sql, &s.kind, s.connection, &s.options);
        if !s.key.is_empty() {
            let key: Vec<_> = s.key.iter().map(|c| quote(c)).collect();
            sql.push_str(&format!(" KEY ({})", key.join(", ")));
        }
        self.push_format(&mut sql, s.format.as_ref(), s.registry);
        push_envelope(&mut sql, s.envelope);
        sql
    }
}

/// `(id bigint NOT NULL, …, PRIMARY KEY (id))`
fn column_list(columns: &[Column], key: &[usize], checks: &[Check], watermark: Option<&Watermark>) -> String {
    let mut parts: Vec<String> = columns
        .iter()
        .map(|c| {
            let mut part = format!("{} {}", quote(&c.name), c.data_type);
            if c.not_null {
                part.push_str(" NOT NULL");
            }
            if let Some(default) = &c.default {
                part.push_str(" DEFAULT ");
                part.push_str(default);
            }
            part
        })
        .collect();
    if !key.is_empty() {
        let key: Vec<_> = key.iter().filter_map(|i| columns.get(*i)).map(|c| quote(&c.name)).collect();
        parts.push(format!("PRIMARY KEY ({})", key.join(", ")));
    }
    if let Some((watermark, column)) = watermark.and_then(|w| Some((w, columns.get(w.column)?))) {
        parts.push(format!("WATERMARK FOR {} AS {}", quote(&column.name), watermark.expr));
    }
    for check in checks {
        parts.push(format!("CONSTRAINT {} CHECK ({})", quote(&check.name), check.condition));
    }
    format!("({})", parts.join(", "))
}

fn names(columns: &[Column]) -> String {
    format!(" ({})", columns.iter().map(|c| quote(&c.name)).collect::<Vec<_>>().join(", "))
}

/// ` (topic = 'orders', password = SECRET p)`; nothing when there are none.
fn push_options(sql: &mut String, options: &OptionList) {
    if options.is_empty() {
        return;
    }
    let list: Vec<_> = options
        .iter()
        .map(|(name, value)| match value {
            OptionValue::Literal(text) => format!("{} = {}", option_name(name), quote_literal(text)),
            OptionValue::Secret(secret) => format!("{} = SECRET {secret}", option_name(name)),
        })
        .collect();
    sql.push_str(&format!(" ({})", list.join(", ")));
}

/// `headers.'x-api-key'`: what is no word of an option's name is quoted.
fn option_name(name: &str) -> String {
    let is_word = |part: &str| {
        part.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
            && part.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
    };
    let part = |part: &str| if is_word(part) { part.to_string() } else { quote_literal(part) };
    name.split('.').map(part).collect::<Vec<_>>().join(".")
}

fn push_envelope(sql: &mut String, envelope: Envelope) {
    match envelope {
        Envelope::None => {}
        Envelope::Upsert => sql.push_str(" ENVELOPE UPSERT"),
        Envelope::Debezium => sql.push_str(" ENVELOPE DEBEZIUM"),
    }
}
