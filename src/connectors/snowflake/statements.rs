//! The text of every statement that the sink sends.
//!
//! Names are always quoted: what the user wrote without quotes is upper case, as Snowflake itself would have it.

use super::types::Column;
use crate::connectors::warehouse::{Batch, Effect, Mode, Progress, Shape, column};
use crate::error::{Error, Result, SqlState};
use crate::names::name_parts;

/// The names of a sink's objects in Snowflake, each as it stands in SQL.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Names {
    /// The table that is kept in step.
    pub target: String,
    /// The sink's progress: one row.
    pub progress: String,
    /// What a batch is loaded to before it is merged.
    pub changes: String,
    /// Where files are put.
    pub stage: String,
}

impl Names {
    /// Names the objects of a sink after its target and what it is known by for life, in the target's schema: no
    /// sink that comes later, whatever its name, uses them. `table`: `t`, `s.t` or `d.s.t`.
    pub fn new(table: &str, sink: uuid::Uuid) -> Result<Names> {
        let parts = name_parts(table, str::to_uppercase).ok_or_else(|| {
            Error::new(
                SqlState::INVALID_PARAMETER_VALUE,
                format!("option \"table\" of SNOWFLAKE sink must be a table's name, not \"{table}\""),
            )
        })?;
        let (name, path) = parts.split_last().ok_or_else(|| Error::internal("a name without parts"))?;
        let in_schema = |name: &str| path.iter().map(|p| quoted(p) + ".").collect::<String>() + &quoted(name);
        let own = |what: &str| in_schema(&format!("{name}__TIDEMILL_{:X}_{what}", sink.simple()));
        Ok(Names {
            target: in_schema(name),
            progress: own("PROGRESS"),
            changes: own("CHANGES"),
            stage: own("STAGE"),
        })
    }
}

impl Names {
    /// The same with a stage that is not the sink's own, by its name in SQL.
    pub fn with_stage(self, stage: String) -> Names {
        Names { stage, ..self }
    }
}

/// A table's whole name, spelled the same however it is written; `database` and `schema` are where a name that
/// does not say them is looked up. `None`: the name is not whole even so.
pub fn whole_name(table: &str, database: Option<&str>, schema: Option<&str>) -> Option<String> {
    whole_parts(table, database, schema).map(|parts| parts.map(|p| quoted(&p)).join("."))
}

/// Database, schema and name of a table, as [`whole_name`] finds them.
pub fn whole_parts(table: &str, database: Option<&str>, schema: Option<&str>) -> Option<[String; 3]> {
    let mut parts = name_parts(table, str::to_uppercase)?;
    for place in [schema, database].into_iter().skip(parts.len() - 1) {
        parts.insert(0, name_parts(place?, str::to_uppercase)?.pop()?);
    }
    parts.try_into().ok()
}

/// A name in quotes.
pub fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// Names in quotes, with commas between them.
pub(super) fn list<'a>(columns: impl IntoIterator<Item = &'a str>) -> String {
    columns.into_iter().map(quoted).collect::<Vec<_>>().join(", ")
}

/// Asks where in a stage a file goes; the directory ends in `/`.
pub(super) fn put_statement(stage: &str, directory: &str, file: &str) -> String {
    format!(
        "PUT 'file:///{file}' @{stage}/{directory} AUTO_COMPRESS=FALSE SOURCE_COMPRESSION=NONE OVERWRITE=TRUE"
    )
}

/// Columns as they are declared.
pub(super) fn definitions(columns: &[Column]) -> Vec<String> {
    let define = |c: &Column| {
        format!("{} {}{}", quoted(&c.name), c.sql_type, if c.nullable { "" } else { " NOT NULL" })
    };
    columns.iter().map(define).collect()
}

/// All statements of one sink.
#[derive(Clone, Debug)]
pub struct Statements {
    /// The objects they name.
    pub names: Names,
    pub(super) shape: Shape,
    pub(super) columns: Vec<Column>,
    sink: String,
}

impl Statements {
    /// Statements about these objects for the sink of this id.
    pub fn new(names: Names, shape: Shape, columns: Vec<Column>, sink: uuid::Uuid) -> Self {
        Statements { names, shape, columns, sink: sink.to_string() }
    }

    /// The relation's columns, then those that tell equal rows apart.
    fn target_columns(&self) -> Vec<&str> {
        let mut names: Vec<&str> = self.columns.iter().map(|c| c.name.as_str()).collect();
        names.extend(self.own_columns());
        names
    }

    /// Columns that the target has besides the relation's.
    pub fn own_columns(&self) -> &'static [&'static str] {
        match self.shape.mode {
            Mode::Bag => &[column::ROW, column::SEQ],
            Mode::Keyed(_) | Mode::Append => &[],
        }
    }

    /// Whether a batch can be copied straight into the target.
    pub fn copies_into_target(&self) -> bool {
        self.shape.mode == Mode::Append && !self.columns.iter().any(|c| c.variant)
    }

    /// Makes the progress table.
    pub fn create_progress(&self) -> String {
        format!(
            "CREATE TABLE IF NOT EXISTS {} (SINK_ID VARCHAR NOT NULL, GENERATION NUMBER(20,0), \
             FENCE NUMBER(20,0), EPOCH NUMBER(20,0), UPDATED_AT TIMESTAMP_LTZ)",
            self.names.progress
        )
    }

    /// Makes the sink's progress row: at nothing.
    pub fn insert_progress(&self) -> String {
        format!(
            "MERGE INTO {} P USING (SELECT '{}' AS SINK_ID) N ON P.SINK_ID = N.SINK_ID \
             WHEN NOT MATCHED THEN INSERT (SINK_ID, GENERATION, FENCE, EPOCH) VALUES (N.SINK_ID, 0, 0, 0)",
            self.names.progress, self.sink
        )
    }

    /// Shuts out every writer that read the progress row before.
    pub fn raise_fence(&self) -> String {
        // It writes what a batch writes, so that it also collides with one where locks are finer than tables.
        format!(
            "UPDATE {} SET FENCE = FENCE + 1, GENERATION = GENERATION, EPOCH = EPOCH WHERE SINK_ID = '{}'",
            self.names.progress, self.sink
        )
    }

    /// Reads the progress row.
    pub fn read_progress(&self) -> String {
        format!(
            "SELECT GENERATION, FENCE, EPOCH FROM {} WHERE SINK_ID = '{}'",
            self.names.progress, self.sink
        )
    }

    /// Moves the progress row, if it is exactly where it should be.
    pub fn advance(&self, from: Progress, to: Progress) -> String {
        format!(
            "UPDATE {} SET GENERATION = {}, EPOCH = {}, UPDATED_AT = CURRENT_TIMESTAMP() \
             WHERE SINK_ID = '{}' AND GENERATION = {} AND FENCE = {} AND EPOCH = {}",
            self.names.progress, to.generation, to.epoch, self.sink, from.generation, from.fence, from.epoch
        )
    }

    /// Makes the target.
    pub fn create_target(&self) -> String {
        let mut columns = definitions(&self.columns);
        columns.extend(self.hidden_columns());
        format!("CREATE TABLE IF NOT EXISTS {} ({})", self.names.target, columns.join(", "))
    }

    fn hidden_columns(&self) -> Vec<String> {
        let typed = |name: &&str| match *name {
            column::ROW => format!("{} VARCHAR(32)", quoted(name)),
            _ => format!("{} NUMBER(19,0)", quoted(name)),
        };
        self.own_columns().iter().map(typed).collect()
    }

    /// Asks for the target's columns.
    pub fn describe_target(&self) -> String {
        format!("DESCRIBE TABLE {}", self.names.target)
    }

    /// Asks how many rows the target has, as `N`.
    pub fn count_target(&self) -> String {
        format!("SELECT COUNT(*) AS N FROM {}", self.names.target)
    }

    /// Made anew at every start: it holds nothing that outlives a transaction.
    pub fn create_changes(&self) -> String {
        let mut columns = Vec::new();
        if self.shape.has_ops() {
            columns.push(format!("{} VARCHAR(1) NOT NULL", quoted(column::OP)));
        }
        columns.extend(self.hidden_columns());
        columns.extend(self.columns.iter().map(|c| format!("{} {}", quoted(&c.name), c.staged_type())));
        format!(
            "CREATE OR REPLACE TRANSIENT TABLE {} ({}) DATA_RETENTION_TIME_IN_DAYS = 0",
            self.names.changes,
            columns.join(", ")
        )
    }

    /// Makes the stage.
    pub fn create_stage(&self) -> String {
        // Encrypted by the server, so that what we put is what is loaded.
        format!("CREATE STAGE IF NOT EXISTS {} ENCRYPTION = (TYPE = 'SNOWFLAKE_SSE')", self.names.stage)
    }

    /// Asks where a file goes; the directory ends in `/`.
    pub fn put(&self, directory: &str, file: &str) -> String {
        put_statement(&self.names.stage, directory, file)
    }

    /// Removes staged files under a directory that ends in `/`.
    pub fn remove(&self, directory: &str) -> String {
        format!("REMOVE @{}/{directory}", self.names.stage)
    }

    /// Removes the batch before.
    pub fn clear_changes(&self) -> String {
        // Not TRUNCATE, which would forget which files were loaded.
        format!("DELETE FROM {}", self.names.changes)
    }

    /// Removes all rows of the target.
    pub fn clear_target(&self) -> String {
        format!("DELETE FROM {}", self.names.target)
    }

    /// Loads a batch. The directory is a prefix: without its last `/` it would name its neighbours, too.
    pub fn copy(&self, batch: &Batch) -> String {
        let straight = self.copies_into_target() && batch.effect != Effect::Mend;
        let into = if straight { &self.names.target } else { &self.names.changes };
        format!(
            "COPY INTO {into} FROM @{}/{} FILE_FORMAT=(TYPE=PARQUET USE_VECTORIZED_SCANNER=TRUE NULL_IF=()) \
             MATCH_BY_COLUMN_NAME=CASE_INSENSITIVE ON_ERROR=ABORT_STATEMENT",
            self.names.stage, batch.directory
        )
    }

    /// Gives the rows of a batch the numbers of the copies that they are in the target: new ones come after
    /// those that are there, and of those that go away the last go first.
    pub fn number_copies(&self) -> String {
        format!(
            "UPDATE {changes} SET {seq} = CASE {op} WHEN 'I' THEN N.N + {seq} ELSE N.N - 1 - {seq} END \
             FROM (SELECT {row} AS R, COUNT(*) AS N FROM {target} \
             WHERE {row} IN (SELECT {row} FROM {changes}) GROUP BY {row}) N WHERE {changes}.{row} = N.R",
            changes = self.names.changes,
            target = self.names.target,
            seq = quoted(column::SEQ),
            row = quoted(column::ROW),
            op = quoted(column::OP),
        )
    }

    /// A batch as rows of the target.
    fn source(&self, with_op: bool) -> String {
        let mut columns = Vec::new();
        if with_op {
            columns.push(quoted(column::OP));
        }
        columns.extend(self.parsed());
        columns.extend(self.own_columns().iter().map(|c| quoted(c)));
        format!("SELECT {} FROM {}", columns.join(", "), self.names.changes)
    }

    /// The relation's columns of a batch, as the target has them.
    fn parsed(&self) -> impl Iterator<Item = String> {
        self.columns.iter().map(|c| {
            let name = quoted(&c.name);
            if c.variant { format!("PARSE_JSON({name}) AS {name}") } else { name }
        })
    }

    /// A batch's rows, without what the sink has added to them.
    pub(super) fn source_columns(&self) -> String {
        let columns: Vec<String> = self.parsed().collect();
        format!("SELECT {} FROM {}", columns.join(", "), self.names.changes)
    }

    /// Asks how many rows were loaded beside the target, as `N`.
    pub fn count_changes(&self) -> String {
        format!("SELECT COUNT(*) AS N FROM {}", self.names.changes)
    }

    /// Adds all rows of a batch.
    pub fn insert(&self) -> String {
        format!("INSERT INTO {} ({}) {}", self.names.target, list(self.target_columns()), self.source(false))
    }

    /// Applies a batch. Each operation acts only where its row is as it must be, so that the counts tell.
    pub fn merge(&self) -> String {
        let keys: Vec<(&str, bool)> = match &self.shape.mode {
            Mode::Keyed(key) => {
                key.iter().map(|&k| (self.columns[k].name.as_str(), self.columns[k].nullable)).collect()
            }
            Mode::Bag | Mode::Append => vec![(column::ROW, false), (column::SEQ, false)],
        };
        let on: Vec<String> = keys
            .iter()
            .map(|(name, nullable)| match (quoted(name), nullable) {
                (name, true) => format!("EQUAL_NULL(T.{name}, S.{name})"),
                (name, false) => format!("T.{name} = S.{name}"),
            })
            .collect();
        let all = self.target_columns();
        let set: Vec<String> = all
            .iter()
            .filter(|c| !keys.iter().any(|(k, _)| k == *c))
            .map(|c| format!("{0} = S.{0}", quoted(c)))
            .collect();
        let op = quoted(column::OP);
        let update = match (&self.shape.mode, set.is_empty()) {
            (Mode::Keyed(_), false) => {
                format!(" WHEN MATCHED AND S.{op} = 'U' THEN UPDATE SET {}", set.join(", "))
            }
            _ => String::new(),
        };
        let values: Vec<String> = all.iter().map(|c| format!("S.{}", quoted(c))).collect();
        format!(
            "MERGE INTO {} T USING ({}) S ON {} WHEN MATCHED AND S.{op} = 'D' THEN DELETE{update} \
             WHEN NOT MATCHED AND S.{op} = 'I' THEN INSERT ({}) VALUES ({})",
            self.names.target,
            self.source(true),
            on.join(" AND "),
            list(all),
            values.join(", ")
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::connectors::snowflake::types::{columns, test_schema};
    use crate::connectors::warehouse::Counts;

    #[test]
    fn a_whole_name_is_the_same_however_it_is_written() {
        let whole = |table| whole_name(table, Some("db"), Some("Public"));
        for table in ["t", "T", "public.t", "DB.\"PUBLIC\".t", "\"T\""] {
            assert_eq!(whole(table).as_deref(), Some("\"DB\".\"PUBLIC\".\"T\""), "{table}");
        }
        assert_ne!(whole("\"t\""), whole("t"));
        assert_ne!(whole("other.t"), whole("t"));
        assert_eq!(whole_name("s.t", Some("d"), None), whole_name("d.s.t", None, None));
        assert_eq!(whole_name("t", Some("d"), None), None);
        assert_eq!(whole_name("s.t", None, Some("x")), None);
    }

    fn statements(table: &str, key: &[usize], append_only: bool) -> Statements {
        let shape = Shape::new(test_schema(), key, append_only);
        Statements::new(
            Names::new(table, uuid::Uuid::nil()).unwrap(),
            shape,
            columns(&test_schema()).unwrap(),
            uuid::Uuid::nil(),
        )
    }

    #[test]
    fn names() {
        let names = Names::new("db.Sales.\"orders by day\"", uuid::Uuid::from_u128(0xab)).unwrap();
        assert_eq!(names.target, r#""DB"."SALES"."orders by day""#);
        assert_eq!(
            names.stage,
            r#""DB"."SALES"."orders by day__TIDEMILL_000000000000000000000000000000AB_STAGE""#
        );
        assert_eq!(Names::new("T", uuid::Uuid::nil()).unwrap().target, r#""T""#);
        for wrong in ["", "a.", ".a", "a.b.c.d", "a b", "a;drop", "\"open", "'"] {
            assert_eq!(
                Names::new(wrong, uuid::Uuid::nil()).unwrap_err().sqlstate,
                SqlState::INVALID_PARAMETER_VALUE,
                "{wrong}"
            );
        }
        assert_eq!(quoted("a\"b"), "\"a\"\"b\"");
    }

    #[test]
    fn a_keyed_merge() {
        assert_eq!(
            statements("t", &[0], false).merge(),
            concat!(
                r#"MERGE INTO "T" T USING (SELECT "_TIDEMILL_OP", "ID", "AMOUNT", "AT", PARSE_JSON("DOC") AS "DOC", "#,
                r#""REF", PARSE_JSON("TAGS") AS "TAGS" FROM "T__TIDEMILL_00000000000000000000000000000000_CHANGES") S ON T."ID" = S."ID" "#,
                r#"WHEN MATCHED AND S."_TIDEMILL_OP" = 'D' THEN DELETE "#,
                r#"WHEN MATCHED AND S."_TIDEMILL_OP" = 'U' THEN UPDATE SET "AMOUNT" = S."AMOUNT", "AT" = S."AT", "#,
                r#""DOC" = S."DOC", "REF" = S."REF", "TAGS" = S."TAGS" "#,
                r#"WHEN NOT MATCHED AND S."_TIDEMILL_OP" = 'I' THEN INSERT ("ID", "AMOUNT", "AT", "DOC", "REF", "TAGS") "#,
                r#"VALUES (S."ID", S."AMOUNT", S."AT", S."DOC", S."REF", S."TAGS")"#,
            )
        );
        // A key column that can be NULL is compared so that NULL equals NULL.
        assert!(
            statements("t", &[0, 4], false)
                .merge()
                .contains(r#"ON T."ID" = S."ID" AND EQUAL_NULL(T."REF", S."REF") WHEN"#)
        );
    }

    #[test]
    fn progress_moves_only_from_where_it_must_be() {
        let from = Progress { generation: 2, fence: 7, epoch: 41 };
        let to = Progress { generation: 2, fence: 7, epoch: 50 };
        assert_eq!(
            statements("t", &[0], false).advance(from, to),
            "UPDATE \"T__TIDEMILL_00000000000000000000000000000000_PROGRESS\" SET GENERATION = 2, EPOCH = 50, UPDATED_AT = CURRENT_TIMESTAMP() \
             WHERE SINK_ID = '00000000-0000-0000-0000-000000000000' AND GENERATION = 2 AND FENCE = 7 AND EPOCH = 41"
        );
    }

    #[test]
    fn without_a_key_copies_are_rows_of_their_own() {
        let bag = statements("t", &[], false);
        assert!(
            bag.create_target().ends_with(r#""_TIDEMILL_ROW" VARCHAR(32), "_TIDEMILL_SEQ" NUMBER(19,0))"#)
        );
        assert!(!bag.merge().contains("UPDATE SET"));
        assert!(bag.merge().contains(
            r#"ON T."_TIDEMILL_ROW" = S."_TIDEMILL_ROW" AND T."_TIDEMILL_SEQ" = S."_TIDEMILL_SEQ""#
        ));
    }

    #[test]
    fn only_rows_that_need_no_parsing_are_copied_straight_into_the_target() {
        let batch = Batch {
            effect: Effect::Advance,
            from: Progress::default(),
            to: Progress::default(),
            directory: "u/g1/e/f1a1/".to_string(),
            files: Vec::new(),
            ranges: Vec::new(),
            counts: Counts::default(),
        };
        assert!(
            statements("t", &[], true).copy(&batch).starts_with(
                r#"COPY INTO "T__TIDEMILL_00000000000000000000000000000000_CHANGES" FROM @"T__TIDEMILL_00000000000000000000000000000000_STAGE"/u/g1/e/f1a1/ "#
            )
        );
        let mut plain = statements("t", &[], true);
        plain.columns.retain(|c| !c.variant);
        assert!(plain.copy(&batch).starts_with(r#"COPY INTO "T" FROM "#));
    }
}
