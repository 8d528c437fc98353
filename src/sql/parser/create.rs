//! CREATE of everything that is no connector: secrets, tables, views, indexes.

use datafusion::sql::sqlparser::ast::{self as sql, ColumnOption, TableConstraint};
use datafusion::sql::sqlparser::tokenizer::Token;

use super::{StatementParser, column_of, parse_query};
use crate::error::{Error, Result, SqlState};
use crate::names::{Name, fold, quote};
use crate::sql::ast::{
    CheckDef, ColumnDef, CreateIndex, CreateSchema, CreateSecret, CreateTable, CreateView, Statement,
    TableBody, WatermarkDef,
};
use crate::types::sql_type_of;

/// What stands in the parentheses of CREATE TABLE and CREATE SOURCE.
#[derive(Default)]
pub(super) struct ColumnList {
    pub(super) columns: Vec<ColumnDef>,
    /// Columns of the primary key; empty: none.
    pub(super) key: Vec<String>,
    pub(super) checks: Vec<CheckDef>,
    pub(super) watermark: Option<WatermarkDef>,
}

impl StatementParser<'_> {
    pub(super) fn create(&mut self) -> Result<Statement> {
        self.expect_word("create")?;
        let or_replace = self.words(&["or", "replace"]);
        for temporary in ["temporary", "temp", "unlogged", "recursive"] {
            if self.word(temporary) {
                return Err(Error::unsupported(format!("CREATE {}", temporary.to_ascii_uppercase())));
            }
        }
        if self.words(&["materialized", "view"]) {
            return self.create_view(or_replace).map(|v| Statement::CreateMaterializedView(Box::new(v)));
        }
        if self.word("view") {
            let view = self.create_view(or_replace)?;
            if view.on_close {
                return Err(Error::unsupported(
                    "EMIT ON WINDOW CLOSE of a view that is computed when it is read",
                )
                .with_hint("Write CREATE MATERIALIZED VIEW."));
            }
            return Ok(Statement::CreateView(Box::new(view)));
        }
        let object = self.peek_word().unwrap_or_default();
        if or_replace && ["secret", "connection", "source", "table", "sink"].contains(&object.as_str()) {
            return Err(Error::unsupported(format!("CREATE OR REPLACE {}", object.to_ascii_uppercase())));
        }
        match object.as_str() {
            "secret" | "connection" | "source" | "sink" | "table" | "index" | "unique" | "schema" => {
                self.p.advance_token();
            }
            "database" | "function" | "procedure" | "type" | "domain" | "sequence" | "role" | "user"
            | "group" | "extension" | "trigger" | "rule" | "policy" | "aggregate" | "cast" | "collation"
            | "operator" | "statistics" | "publication" | "subscription" | "tablespace" | "server"
            | "foreign" | "event" | "text" | "language" | "alert" | "cluster" | "access" | "conversion"
            | "transform" => {
                return Err(Error::unsupported(format!("CREATE {}", object.to_ascii_uppercase())));
            }
            _ => return Err(self.unexpected()),
        }
        match object.as_str() {
            "secret" => self.create_secret(),
            "connection" => self.create_connection(),
            "source" => self.create_source(),
            "sink" => self.create_sink(),
            "table" => self.create_table(),
            "schema" => self.create_schema(),
            "unique" => Err(Error::unsupported("CREATE UNIQUE INDEX")),
            _ => self.create_index(),
        }
    }

    fn create_secret(&mut self) -> Result<Statement> {
        let if_not_exists = self.if_not_exists();
        let name = self.name()?;
        self.expect_word("as")?;
        let value = self.string()?;
        Ok(Statement::CreateSecret(CreateSecret { name, if_not_exists, value }))
    }

    fn create_schema(&mut self) -> Result<Statement> {
        let if_not_exists = self.if_not_exists();
        let named = self.peek_word().as_deref() != Some("authorization");
        let name = if named { Some(self.name()?) } else { None };
        let owner = if self.word("authorization") { Some(self.ident()?) } else { None };
        // A schema that has no name of its own is called like its owner.
        let Some(name) = name.or_else(|| owner.clone().map(Name::bare)) else {
            return Err(self.unexpected());
        };
        if matches!(self.peek_word().as_deref(), Some("create" | "grant")) {
            return Err(Error::unsupported("CREATE SCHEMA with what it is to contain")
                .with_hint("Create that in statements of their own."));
        }
        Ok(Statement::CreateSchema(CreateSchema { name, if_not_exists, owner }))
    }

    fn create_view(&mut self, or_replace: bool) -> Result<CreateView> {
        let if_not_exists = self.if_not_exists();
        let name = self.name()?;
        let columns = match self.p.peek_token_ref().token {
            Token::LParen => self.ident_list()?,
            _ => Vec::new(),
        };
        let options = if self.word("with") { self.options()? } else { Vec::new() };
        self.expect_word("as")?;
        let (query, query_text, query_offset) = self.spanned(Self::query)?;
        let on_close = self.words(&["emit", "on", "window", "close"]) || self.words(&["emit", "final"]);
        if self.words(&["with", "no", "data"]) {
            return Err(Error::unsupported("WITH NO DATA"));
        }
        self.words(&["with", "data"]);
        if let Some((name, _)) = options.first() {
            return Err(Error::unsupported(format!("option \"{name}\" of a view")));
        }
        Ok(CreateView {
            name,
            or_replace,
            if_not_exists,
            columns,
            query,
            on_close,
            query_text,
            query_offset,
            options,
        })
    }

    fn create_index(&mut self) -> Result<Statement> {
        self.word("concurrently");
        let if_not_exists = self.if_not_exists();
        let name = if self.peek_word().as_deref() == Some("on") { None } else { Some(self.name()?) };
        self.expect_word("on")?;
        let on = self.name()?;
        if self.word("using") {
            self.ident()?;
        }
        self.expect(&Token::LParen)?;
        let columns = self.comma_separated(|s| {
            let position = s.position();
            let expr = s.expr()?;
            let column = column_of(&expr)
                .ok_or_else(|| Error::unsupported("an index on an expression").at(position))?;
            let _ = s.word("asc") || s.word("desc");
            let _ = s.words(&["nulls", "first"]) || s.words(&["nulls", "last"]);
            Ok(column)
        })?;
        self.expect(&Token::RParen)?;
        // An index finds whole rows: there is nothing to include.
        if self.word("include") {
            self.ident_list()?;
        }
        if self.peek_word().as_deref() == Some("where") {
            return Err(Error::unsupported("a partial index").at(self.position()));
        }
        Ok(Statement::CreateIndex(CreateIndex { name, if_not_exists, on, columns }))
    }

    fn create_table(&mut self) -> Result<Statement> {
        let if_not_exists = self.if_not_exists();
        let name = self.name()?;
        let body = if self.words(&["from", "source"]) {
            let source = self.name()?;
            self.expect(&Token::LParen)?;
            self.expect_word("reference")?;
            let parsed = self.p.parse_object_name(false);
            let reference: Vec<String> =
                self.lift(parsed)?.0.iter().filter_map(|p| p.as_ident()).map(fold).collect();
            self.expect(&Token::RParen)?;
            TableBody::Source { source, reference: reference.join(".") }
        } else if self.word("as") {
            self.table_query(Vec::new())?
        } else if self.names_only() {
            let columns = self.ident_list()?;
            self.expect_word("as")?;
            self.table_query(columns)?
        } else {
            let ColumnList { columns, key, checks, watermark } = self.column_list()?;
            match self.word("as") {
                true if watermark.is_some() => {
                    return Err(Error::unsupported("WATERMARK in CREATE TABLE … AS").at(self.position()));
                }
                true => self.typed_query(&columns, &key, &checks)?,
                false => TableBody::Columns { columns, key, checks, watermark: watermark.map(Box::new) },
            }
        };
        let append_only = self.words(&["append", "only"]);
        if matches!(
            self.peek_word().as_deref(),
            Some("with" | "partition" | "inherits" | "tablespace" | "using")
        ) {
            let word = self.peek_word().unwrap_or_default().to_ascii_uppercase();
            return Err(Error::unsupported(format!("CREATE TABLE … {word}")).at(self.position()));
        }
        Ok(Statement::CreateTable(Box::new(CreateTable { name, if_not_exists, body, append_only })))
    }

    /// Whether `(a, b) AS` follows.
    fn names_only(&self) -> bool {
        let mut i = 0;
        if self.p.peek_nth_token_ref(i).token != Token::LParen {
            return false;
        }
        loop {
            if !matches!(self.p.peek_nth_token_ref(i + 1).token, Token::Word(_)) {
                return false;
            }
            i += 2;
            match self.p.peek_nth_token_ref(i).token {
                Token::Comma => {}
                Token::RParen => return self.peek_word_at(i + 1).as_deref() == Some("as"),
                _ => return false,
            }
        }
    }

    fn table_query(&mut self, columns: Vec<String>) -> Result<TableBody> {
        let query = self.query()?;
        let with_data = !self.words(&["with", "no", "data"]);
        self.words(&["with", "data"]);
        Ok(TableBody::Query { columns, query, with_data })
    }

    /// `(a bigint, b text) AS SELECT …`, which PostgreSQL does not have: the query's columns are cast to these types.
    fn typed_query(
        &mut self,
        columns: &[ColumnDef],
        key: &[String],
        checks: &[CheckDef],
    ) -> Result<TableBody> {
        let constrained = !key.is_empty()
            || !checks.is_empty()
            || columns.iter().any(|c| c.not_null || c.default.is_some());
        if constrained {
            return Err(Error::unsupported("constraints in CREATE TABLE … AS").at(self.position()));
        }
        let TableBody::Query { query, with_data, .. } = self.table_query(Vec::new())? else {
            return Err(Error::internal("a table's query is a query"));
        };
        let cast = |c: &ColumnDef| format!("{0}::{1} AS {0}", quote(&c.name), c.data_type);
        let casts: Vec<String> = columns.iter().map(cast).collect();
        let names: Vec<String> = columns.iter().map(|c| quote(&c.name)).collect();
        let text = format!("SELECT {} FROM (SELECT 1) AS q({})", casts.join(", "), names.join(", "));
        let mut outer = parse_query(&text)?;
        if let sql::SetExpr::Select(select) = outer.body.as_mut()
            && let Some(sql::TableWithJoins { relation: sql::TableFactor::Derived { subquery, .. }, .. }) =
                select.from.first_mut()
        {
            *subquery = query;
        }
        Ok(TableBody::Query { columns: Vec::new(), query: outer, with_data })
    }

    /// `(column type constraints, …, PRIMARY KEY (a, b))`: the columns, those of the key, and the checks.
    pub(super) fn column_list(&mut self) -> Result<ColumnList> {
        self.expect(&Token::LParen)?;
        let mut columns: Vec<ColumnDef> = Vec::new();
        let mut checks: Vec<CheckDef> = Vec::new();
        let mut key: Option<Vec<String>> = None;
        let mut watermark: Option<WatermarkDef> = None;
        if self.p.consume_token(&Token::RParen) {
            return Ok(ColumnList::default());
        }
        loop {
            let position = self.position();
            let declared = if self.peek_word().as_deref() == Some("watermark")
                && self.peek_word_at(1).as_deref() == Some("for")
            {
                if watermark.is_some() {
                    return Err(Error::unsupported("a second WATERMARK of a relation").at(position));
                }
                watermark = Some(self.watermark(position)?);
                None
            } else if self.peek_word().as_deref() == Some("like") {
                return Err(Error::unsupported("LIKE in CREATE TABLE").at(position));
            } else {
                let parsed = self.p.parse_optional_table_constraint();
                match self.lift(parsed)? {
                    Some(TableConstraint::Check(check)) => {
                        let name = check.name.as_ref().map(fold);
                        checks.push(CheckDef { name, column: None, condition: *check.expr });
                        None
                    }
                    Some(constraint) => Some(table_key(constraint).map_err(|e| e.at(position))?),
                    None => self.column(&mut columns, &mut checks)?,
                }
            };
            if let Some(declared) = declared {
                if key.is_some() {
                    return Err(Error::new(
                        SqlState::INVALID_TABLE_DEFINITION,
                        "multiple primary keys are not allowed",
                    )
                    .at(position));
                }
                key = Some(declared);
            }
            // A comma after the last one is let through.
            if !self.p.consume_token(&Token::Comma) || self.p.peek_token_ref().token == Token::RParen {
                break;
            }
        }
        self.expect(&Token::RParen)?;
        let key = key.unwrap_or_default();
        for name in &key {
            match columns.iter_mut().find(|c| c.name == *name) {
                Some(column) => column.not_null = true,
                None => {
                    return Err(Error::new(
                        SqlState::UNDEFINED_COLUMN,
                        format!("column \"{name}\" named in key does not exist"),
                    ));
                }
            }
        }
        Ok(ColumnList { columns, key, checks, watermark })
    }

    /// `WATERMARK FOR at AS at - INTERVAL '5 seconds'`
    fn watermark(&mut self, position: u32) -> Result<WatermarkDef> {
        self.expect_word("watermark")?;
        self.expect_word("for")?;
        let column = self.ident()?;
        self.expect_word("as")?;
        Ok(WatermarkDef { column, expr: self.expr()?, position })
    }

    /// One column; answers with its name when it is the primary key.
    fn column(
        &mut self,
        columns: &mut Vec<ColumnDef>,
        checks: &mut Vec<CheckDef>,
    ) -> Result<Option<Vec<String>>> {
        let position = self.position();
        if !matches!(self.p.peek_token_ref().token, Token::Word(_)) {
            return Err(self.unexpected());
        }
        let name_token = self.p.peek_nth_token_ref(1);
        if matches!(name_token.token, Token::Comma | Token::RParen | Token::EOF) {
            return Err(self.unexpected_at(name_token));
        }
        let parsed = self.p.parse_column_def();
        let def = self.lift(parsed)?;
        let name = fold(&def.name);
        let type_position = self.source.position(def.name.span.end) + 1;
        if let Some(serial) = serial_type(&def.data_type) {
            return Err(Error::unsupported(format!("type {serial}")).at(type_position));
        }
        let data_type = sql_type_of(&def.data_type).map_err(|e| e.at(type_position))?;
        if columns.iter().any(|c| c.name == name) {
            return Err(Error::new(
                SqlState::DUPLICATE_COLUMN,
                format!("column \"{name}\" specified more than once"),
            )
            .at(position));
        }
        let mut column = ColumnDef { name: name.clone(), data_type, not_null: false, default: None };
        let mut is_key = false;
        for option in def.options {
            match option.option {
                ColumnOption::Null => {}
                ColumnOption::NotNull => column.not_null = true,
                ColumnOption::Default(expr) => column.default = Some(expr),
                ColumnOption::PrimaryKey(_) => is_key = true,
                ColumnOption::Check(check) => checks.push(CheckDef {
                    name: option.name.as_ref().or(check.name.as_ref()).map(fold),
                    column: Some(name.clone()),
                    condition: *check.expr,
                }),
                other => {
                    return Err(Error::unsupported(format!("column constraint {}", constraint_name(&other)))
                        .at(position));
                }
            }
        }
        columns.push(column);
        Ok(is_key.then(|| vec![name]))
    }
}

fn serial_type(data_type: &sql::DataType) -> Option<String> {
    let name = data_type.to_string().to_ascii_lowercase();
    ["serial", "bigserial", "smallserial", "serial4", "serial8", "serial2"]
        .contains(&name.as_str())
        .then_some(name)
}

fn constraint_name(option: &ColumnOption) -> &'static str {
    match option {
        ColumnOption::Unique(_) => "UNIQUE",
        ColumnOption::ForeignKey(_) => "REFERENCES",
        ColumnOption::Generated { .. } | ColumnOption::Identity(_) => "GENERATED",
        ColumnOption::Collation(_) => "COLLATE",
        _ => "of this kind",
    }
}

/// The columns of a PRIMARY KEY constraint; other constraints are not built.
fn table_key(constraint: TableConstraint) -> Result<Vec<String>> {
    match constraint {
        TableConstraint::PrimaryKey(key) => key
            .columns
            .iter()
            .map(|c| {
                column_of(&c.column.expr)
                    .ok_or_else(|| Error::new(SqlState::SYNTAX_ERROR, "a primary key is made of columns"))
            })
            .collect(),
        TableConstraint::Unique(_) => Err(Error::unsupported("UNIQUE constraint")),
        TableConstraint::ForeignKey(_) => Err(Error::unsupported("FOREIGN KEY constraint")),
        other => Err(Error::unsupported(format!("constraint {other}"))),
    }
}
