//! DROP, ALTER, COMMENT, SHOW of objects, TRUNCATE, and statements about one object.

use super::StatementParser;
use crate::error::{Error, Result};
use crate::names::Name;
use crate::sql::ast::{
    Alter, AlterChange, Comment, Drop, ObjectKind, ReplayErrors, Show, Statement, Truncate, VerifySink,
    WaitForSink,
};

const KINDS: [(&[&str], ObjectKind); 9] = [
    (&["materialized", "view"], ObjectKind::MaterializedView),
    (&["secret"], ObjectKind::Secret),
    (&["connection"], ObjectKind::Connection),
    (&["table"], ObjectKind::Table),
    (&["source"], ObjectKind::Source),
    (&["view"], ObjectKind::View),
    (&["sink"], ObjectKind::Sink),
    (&["index"], ObjectKind::Index),
    (&["schema"], ObjectKind::Schema),
];

impl StatementParser<'_> {
    /// An object's kind, in the singular; `verb` names the statement when the kind is not built.
    fn kind(&mut self, verb: &str) -> Result<ObjectKind> {
        for (words, kind) in KINDS {
            if self.words(words) {
                return Ok(kind);
            }
        }
        match self.peek_word().as_deref() {
            Some(
                word @ ("database" | "function" | "procedure" | "type" | "domain" | "sequence" | "role"
                | "user" | "group" | "extension" | "trigger" | "rule" | "policy" | "aggregate"
                | "cast" | "collation" | "operator" | "statistics" | "publication" | "subscription"
                | "tablespace" | "server" | "foreign" | "event" | "text" | "language" | "alert"
                | "cluster" | "owned" | "system" | "default" | "constraint" | "large" | "access"),
            ) => Err(Error::unsupported(format!("{verb} {}", word.to_ascii_uppercase()))),
            _ => Err(self.unexpected()),
        }
    }

    pub(super) fn drop_objects(&mut self) -> Result<Statement> {
        self.expect_word("drop")?;
        let kind = self.kind("DROP")?;
        if kind == ObjectKind::Index {
            self.word("concurrently");
        }
        let if_exists = self.words(&["if", "exists"]);
        let names = self.names()?;
        let cascade = self.cascade();
        Ok(Statement::Drop(Drop { kind, names, if_exists, cascade }))
    }

    fn cascade(&mut self) -> bool {
        let cascade = self.word("cascade");
        if !cascade {
            self.word("restrict");
        }
        cascade
    }

    pub(super) fn alter(&mut self) -> Result<Statement> {
        self.expect_word("alter")?;
        let kind = self.kind("ALTER")?;
        let if_exists = self.words(&["if", "exists"]);
        let name = self.name()?;
        let keyword = kind.keyword();
        let change = if self.words(&["rename", "to"]) {
            AlterChange::Rename(self.ident()?)
        } else if self.words(&["owner", "to"]) {
            AlterChange::Owner(self.ident()?)
        } else if kind != ObjectKind::Schema && self.words(&["set", "schema"]) {
            AlterChange::SetSchema(self.ident()?)
        } else if matches!(kind, ObjectKind::Sink | ObjectKind::Source) && self.word("pause") {
            AlterChange::Pause
        } else if matches!(kind, ObjectKind::Sink | ObjectKind::Source) && self.word("resume") {
            AlterChange::Resume
        } else if kind == ObjectKind::Source && self.words(&["on", "schema", "change"]) {
            AlterChange::OnSchemaChange(self.schema_change_policy()?)
        } else if kind.is_swappable() && self.words(&["swap", "with"]) {
            AlterChange::Swap(self.name()?)
        } else if let Some(
            word @ ("add" | "drop" | "alter" | "set" | "reset" | "rename" | "swap" | "enable" | "disable"
            | "attach" | "detach" | "inherit" | "no" | "cluster" | "validate" | "replica" | "force"),
        ) = self.peek_word().as_deref()
        {
            return Err(Error::unsupported(format!("ALTER {keyword} … {}", word.to_ascii_uppercase())));
        } else {
            return Err(self.unexpected());
        };
        Ok(Statement::Alter(Alter { kind, name, if_exists, change }))
    }

    pub(super) fn comment(&mut self) -> Result<Statement> {
        self.expect_words(&["comment", "on"])?;
        let (kind, name, column) = if self.word("column") {
            // `schema.relation.column` or `relation.column`: the last part is the column.
            let Name { database: schema, schema: relation, name: column } = self.name()?;
            let Some(relation) = relation else { return Err(self.unexpected()) };
            (ObjectKind::Table, Name { schema, ..Name::bare(relation) }, Some(column))
        } else {
            (self.kind("COMMENT ON")?, self.name()?, None)
        };
        self.expect_word("is")?;
        let text = if self.word("null") { None } else { Some(self.string()?) };
        // An empty comment removes it, as in PostgreSQL.
        Ok(Statement::Comment(Comment { kind, name, column, text: text.filter(|t| !t.is_empty()) }))
    }

    pub(super) fn show(&mut self) -> Result<Statement> {
        self.expect_word("show")?;
        for (words, kind) in [
            (&["materialized", "views"][..], ObjectKind::MaterializedView),
            (&["secrets"], ObjectKind::Secret),
            (&["connections"], ObjectKind::Connection),
            (&["tables"], ObjectKind::Table),
            (&["sources"], ObjectKind::Source),
            (&["views"], ObjectKind::View),
            (&["sinks"], ObjectKind::Sink),
            (&["indexes"], ObjectKind::Index),
            (&["indices"], ObjectKind::Index),
            (&["schemas"], ObjectKind::Schema),
        ] {
            if self.words(words) {
                return Ok(Statement::Show(Show::Objects(kind)));
            }
        }
        if self.words(&["columns", "from"]) {
            return Ok(Statement::Show(Show::Columns(self.name()?)));
        }
        if self.word("create") {
            let kind = self.kind("SHOW CREATE")?;
            return Ok(Statement::Show(Show::Create(kind, self.name()?)));
        }
        if self.peek_word().as_deref() == Some("status") {
            self.p.advance_token();
            return Ok(Statement::Show(Show::Status));
        }
        Ok(Statement::ShowVariable(self.variable()?))
    }

    pub(super) fn truncate(&mut self) -> Result<Statement> {
        self.expect_word("truncate")?;
        self.word("table");
        self.word("only");
        let tables = self.names()?;
        if self.words(&["restart", "identity"]) {
            return Err(Error::unsupported("TRUNCATE … RESTART IDENTITY"));
        }
        self.words(&["continue", "identity"]);
        // Nothing refers to a table by a foreign key, so that CASCADE has nothing to reach.
        self.cascade();
        Ok(Statement::Truncate(Truncate { tables }))
    }

    pub(super) fn check_view(&mut self) -> Result<Statement> {
        self.expect_words(&["check", "materialized", "view"])?;
        Ok(Statement::CheckView(self.name()?))
    }

    pub(super) fn validate_connection(&mut self) -> Result<Statement> {
        self.expect_words(&["validate", "connection"])?;
        Ok(Statement::ValidateConnection(self.name()?))
    }

    pub(super) fn verify_sink(&mut self) -> Result<Statement> {
        self.expect_words(&["verify", "sink"])?;
        let name = self.name()?;
        let repair = self.word("repair");
        Ok(Statement::VerifySink(VerifySink { name, repair }))
    }

    pub(super) fn replay_errors(&mut self) -> Result<Statement> {
        self.expect_words(&["replay", "errors", "from"])?;
        let source = self.name()?;
        let condition = match self.word("where") {
            true => {
                let parsed = self.p.parse_expr();
                Some(self.lift(parsed)?)
            }
            false => None,
        };
        Ok(Statement::ReplayErrors(Box::new(ReplayErrors { source, condition })))
    }

    pub(super) fn wait_for_sink(&mut self) -> Result<Statement> {
        self.expect_words(&["wait", "for", "sink"])?;
        let name = self.name()?;
        let tick = if self.words(&["at", "tick"]) {
            Some(self.whole_number()?)
        } else {
            let _ = self.words(&["at", "current"]) || self.word("current");
            None
        };
        let timeout_micros = if self.word("timeout") { Some(self.duration_micros()?) } else { None };
        Ok(Statement::WaitForSink(WaitForSink { name, tick, timeout_micros }))
    }
}
