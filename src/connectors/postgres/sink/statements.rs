//! The text of every statement that the sink sends.

use super::columns::Column;
use crate::connectors::postgres::tables::quoted;
use crate::connectors::warehouse::{Mode, Progress, Shape};
use crate::error::{Error, Result, SqlState};
use crate::names::{fold_str, name_parts};
use crate::types::SqlType;

/// The session's table that a batch is copied to before it is applied.
const CHANGES: &str = "pg_temp.tidemill_changes";
/// Columns of ours, in the table of changes and, without a key, the last two in the target.
const OP: &str = "_tidemill_op";
const ROW: &str = "_tidemill_row";
const SEQ: &str = "_tidemill_seq";
/// Sinks that open and leave take turns here, so that nobody drops the progress table under another one.
const TURN: &str = "SELECT pg_advisory_xact_lock(hashtext('tidemill_progress'))";

/// The names of a sink's tables in PostgreSQL, each as it stands in SQL.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Names {
    /// The table that is kept in step.
    pub target: String,
    /// Where all sinks into this schema keep their progress, a row each.
    pub progress: String,
}

impl Names {
    /// `table`: `t`, which is in `public`, or `s.t`.
    pub fn new(table: &str) -> Result<Names> {
        let parts = name_parts(table, fold_str);
        let (schema, name) = match parts.as_deref() {
            Some([name]) => ("public", name),
            Some([schema, name]) => (schema.as_str(), name),
            _ => {
                return Err(Error::new(
                    SqlState::INVALID_PARAMETER_VALUE,
                    format!("option \"table\" of POSTGRES sink must be like public.orders, not \"{table}\""),
                ));
            }
        };
        let schema = quoted(schema);
        Ok(Names {
            target: format!("{schema}.{}", quoted(name)),
            progress: format!("{schema}.tidemill_progress"),
        })
    }
}

/// All statements of one sink.
#[derive(Clone, Debug)]
pub struct Statements {
    /// The tables they name.
    pub names: Names,
    /// The target's columns that hold the relation's.
    pub columns: Vec<Column>,
    shape: Shape,
    sink: uuid::Uuid,
}

impl Statements {
    /// Statements about these tables for the sink of this id.
    pub fn new(names: Names, shape: Shape, columns: Vec<Column>, sink: uuid::Uuid) -> Self {
        Statements { names, columns, shape, sink }
    }

    /// Makes the progress table and the sink's row in it, at nothing. `name` is for people.
    // Not ON CONFLICT, which would wait for a transaction that holds the row.
    pub fn create_progress(&self, name: &str) -> String {
        format!(
            "BEGIN; {TURN}; CREATE TABLE IF NOT EXISTS {progress} (sink_id uuid PRIMARY KEY, sink text NOT NULL, \
             target text NOT NULL, generation bigint NOT NULL, fence bigint NOT NULL, tick bigint NOT NULL, \
             updated_at timestamptz); \
             INSERT INTO {progress} SELECT '{id}', {name}, {target}, 0, 0, 0 \
             WHERE NOT EXISTS (SELECT FROM {progress} WHERE sink_id = '{id}'); COMMIT",
            progress = self.names.progress,
            id = self.sink,
            name = literal(name),
            target = literal(&self.names.target),
        )
    }

    /// Shuts out every writer that read the progress row before, and reads it.
    pub fn raise_fence(&self) -> String {
        format!(
            "UPDATE {} SET fence = fence + 1 WHERE sink_id = '{}' RETURNING generation, fence, tick",
            self.names.progress, self.sink
        )
    }

    /// Reads the progress row.
    pub fn read_progress(&self) -> String {
        format!("SELECT generation, fence, tick FROM {} WHERE sink_id = '{}'", self.names.progress, self.sink)
    }

    /// Moves the progress row, if it is exactly where it should be.
    pub fn advance(&self, from: Progress, to: Progress) -> String {
        format!(
            "UPDATE {} SET generation = {}, tick = {}, updated_at = now() \
             WHERE sink_id = '{}' AND generation = {} AND fence = {} AND tick = {}",
            self.names.progress, to.generation, to.epoch, self.sink, from.generation, from.fence, from.epoch
        )
    }

    /// Columns that the target has besides the relation's.
    pub fn own_columns(&self) -> &'static [&'static str] {
        match self.shape.mode {
            Mode::Bag => &[ROW, SEQ],
            Mode::Keyed(_) | Mode::Append => &[],
        }
    }

    /// The columns that tell rows of the target apart, and whether each can be NULL; none: nothing does.
    pub fn key(&self) -> Vec<(&str, bool)> {
        match &self.shape.mode {
            Mode::Keyed(key) => {
                key.iter().map(|&k| (self.columns[k].name.as_str(), self.columns[k].nullable)).collect()
            }
            Mode::Bag => vec![(ROW, false), (SEQ, false)],
            Mode::Append => Vec::new(),
        }
    }

    /// Makes the target.
    pub fn create_target(&self) -> String {
        let mut parts: Vec<String> = self
            .columns
            .iter()
            .map(|c| {
                format!("{} {}{}", quoted(&c.name), c.sql_type, if c.nullable { "" } else { " NOT NULL" })
            })
            .collect();
        if self.shape.mode == Mode::Bag {
            parts.extend([format!("{ROW} text NOT NULL"), format!("{SEQ} bigint NOT NULL")]);
        }
        let key = self.key();
        if !key.is_empty() {
            // A primary key has no NULLs.
            let constraint = if key.iter().any(|(_, nullable)| *nullable) { "UNIQUE" } else { "PRIMARY KEY" };
            parts.push(format!("{constraint} ({})", list(key.iter().map(|(name, _)| *name))));
        }
        let mut sql = format!("CREATE TABLE {} ({})", self.names.target, parts.join(", "));
        if key.is_empty() || key.iter().any(|(_, nullable)| *nullable) {
            // Without it, rows of a table without primary key cannot change where a publication is of all tables.
            sql.push_str(&format!("; ALTER TABLE {} REPLICA IDENTITY FULL", self.names.target));
        }
        sql
    }

    /// Asks for the target's columns: none, if there is no target.
    pub fn describe_target(&self) -> String {
        format!(
            "SELECT a.attname::text, a.atttypid, a.atttypmod, format_type(a.atttypid, a.atttypmod), \
             a.attnotnull AND NOT a.atthasdef AND a.attidentity = '' \
             FROM pg_attribute a WHERE a.attrelid = to_regclass({}) AND a.attnum > 0 AND NOT a.attisdropped \
             ORDER BY a.attnum",
            literal(&self.names.target)
        )
    }

    /// Asks for the target's unique indexes that conflicts can be found by: the columns of each.
    pub fn unique_indexes(&self) -> String {
        format!(
            "SELECT array(SELECT a.attname::text FROM pg_attribute a WHERE a.attrelid = i.indrelid \
             AND a.attnum = ANY (i.indkey[0:i.indnkeyatts - 1])) FROM pg_index i WHERE i.indrelid = to_regclass({}) \
             AND i.indisunique AND i.indimmediate AND i.indisvalid AND i.indpred IS NULL AND i.indexprs IS NULL",
            literal(&self.names.target)
        )
    }

    /// Asks whether the target has rows.
    pub fn has_rows(&self) -> String {
        format!("SELECT EXISTS (SELECT FROM {})", self.names.target)
    }

    /// Makes the session's table of changes.
    pub fn create_changes(&self) -> String {
        let mut parts = Vec::new();
        if self.shape.has_ops() {
            parts.push(format!("{OP} text NOT NULL"));
        }
        if self.shape.mode == Mode::Bag {
            parts.extend([format!("{ROW} text NOT NULL"), format!("{SEQ} bigint NOT NULL")]);
        }
        parts.extend(self.columns.iter().map(|c| format!("{} {}", quoted(&c.name), c.sql_type)));
        format!("CREATE TEMPORARY TABLE tidemill_changes ({})", parts.join(", "))
    }

    /// Removes the batch before.
    pub fn clear_changes() -> String {
        format!("TRUNCATE {CHANGES}")
    }

    /// Takes a batch in, in the order of the staged columns.
    pub fn copy_changes() -> String {
        format!("COPY {CHANGES} FROM STDIN")
    }

    /// Lets the planner know how large the batch is.
    pub fn analyze_changes() -> String {
        format!("ANALYZE {CHANGES}")
    }

    /// Removes all rows of the target.
    pub fn clear_target(&self) -> String {
        format!("DELETE FROM {}", self.names.target)
    }

    /// Gives the rows of a batch the numbers of the copies that they are in the target: new ones come after
    /// those that are there, and of those that go away the last go first.
    pub fn number_copies(&self) -> String {
        format!(
            "UPDATE {CHANGES} c SET {SEQ} = CASE c.{OP} WHEN 'I' THEN n.n + c.{SEQ} ELSE n.n - 1 - c.{SEQ} END \
             FROM (SELECT {ROW} AS r, count(*) AS n FROM {target} WHERE {ROW} IN (SELECT {ROW} FROM {CHANGES}) \
             GROUP BY {ROW}) n WHERE c.{ROW} = n.r",
            target = self.names.target,
        )
    }

    /// How rows of a batch find those of the target: by indexable equality, and where the batch has a key with a
    /// NULL in it, those rows apart.
    fn matches(&self, nulls: bool) -> Vec<String> {
        let key = self.key();
        let all = |how: &str| {
            let each = key.iter().map(|(name, _)| format!("t.{0} {how} c.{0}", quoted(name)));
            each.collect::<Vec<_>>().join(" AND ")
        };
        let mut matches = vec![all("=")];
        if nulls {
            let absent: Vec<String> = key
                .iter()
                .filter(|(_, nullable)| *nullable)
                .map(|(name, _)| format!("c.{} IS NULL", quoted(name)))
                .collect();
            matches.push(format!("{} AND ({})", all("IS NOT DISTINCT FROM"), absent.join(" OR ")));
        }
        matches
    }

    /// Removes the rows of the target that a batch says go away.
    pub fn delete(&self, nulls: bool) -> Vec<String> {
        let delete = |on: String| {
            format!("DELETE FROM {} t USING {CHANGES} c WHERE c.{OP} = 'D' AND {on}", self.names.target)
        };
        self.matches(nulls).into_iter().map(delete).collect()
    }

    /// Replaces the rows of the target that a batch says are others now; none, if a key is all there is.
    pub fn update(&self, nulls: bool) -> Vec<String> {
        let key = self.key();
        let set: Vec<String> = self
            .columns
            .iter()
            .filter(|c| !key.iter().any(|(name, _)| c.name == *name))
            .map(|c| format!("{0} = c.{0}", quoted(&c.name)))
            .collect();
        if set.is_empty() || !matches!(self.shape.mode, Mode::Keyed(_)) {
            return Vec::new();
        }
        let update = |on: String| {
            let target = &self.names.target;
            format!("UPDATE {target} t SET {} FROM {CHANGES} c WHERE c.{OP} = 'U' AND {on}", set.join(", "))
        };
        self.matches(nulls).into_iter().map(update).collect()
    }

    /// Compares the target's rows with those copied: which side has a row more often, the row, and how many rows are
    /// missing, too many and changed in all.
    pub fn compare(&self) -> String {
        let columns: Vec<String> = self
            .columns
            .iter()
            .map(|c| {
                let name = quoted(&c.name);
                match json(&c.sql_type) {
                    // `json` has no equality.
                    Some(comparable) => format!("{name}::{comparable} AS {name}"),
                    None => name,
                }
            })
            .collect();
        let columns = columns.join(", ");
        let target = &self.names.target;
        let (is_change, of_key) = match &self.shape.mode {
            Mode::Keyed(_) => (
                format!(
                    "count(*) FILTER (WHERE {OP} = 'lacks') OVER of_key = 1 AND count(*) FILTER (WHERE {OP} = 'has') OVER of_key = 1"
                ),
                format!("PARTITION BY {}", list(self.key().into_iter().map(|(name, _)| name))),
            ),
            Mode::Bag | Mode::Append => ("false".to_string(), String::new()),
        };
        format!(
            "WITH ours AS (SELECT {columns} FROM {CHANGES}), theirs AS (SELECT {columns} FROM {target}), \
             apart AS (SELECT 'lacks' AS {OP}, o.* FROM (SELECT * FROM ours EXCEPT ALL SELECT * FROM theirs) o \
             UNION ALL SELECT 'has', t.* FROM (SELECT * FROM theirs EXCEPT ALL SELECT * FROM ours) t), \
             marked AS (SELECT apart.*, {is_change} AS {CHANGE} FROM apart WINDOW of_key AS ({of_key})) \
             SELECT {OP}, (to_jsonb(marked) - '{OP}' - '{CHANGE}')::text, \
             count(*) FILTER (WHERE {OP} = 'lacks' AND NOT {CHANGE}) OVER (), \
             count(*) FILTER (WHERE {OP} = 'has' AND NOT {CHANGE}) OVER (), \
             count(*) FILTER (WHERE {OP} = 'lacks' AND {CHANGE}) OVER () FROM marked ORDER BY 2, 1 LIMIT {SHOWN}"
        )
    }

    /// Adds the rows that a batch says are new. One whose key is there already is left out, which the count tells.
    pub fn insert(&self) -> String {
        let mut all: Vec<&str> = self.columns.iter().map(|c| c.name.as_str()).collect();
        all.extend(self.own_columns());
        let values = all.iter().map(|name| format!("c.{}", quoted(name))).collect::<Vec<_>>().join(", ");
        let mut sql = format!(
            "INSERT INTO {} ({}) SELECT {values} FROM {CHANGES} c",
            self.names.target,
            list(all.iter().copied())
        );
        if self.shape.has_ops() {
            sql.push_str(&format!(" WHERE c.{OP} = 'I'"));
        }
        let key = self.key();
        if !key.is_empty() {
            sql.push_str(&format!(" ON CONFLICT ({}) DO NOTHING", list(key.iter().map(|(name, _)| *name))));
        }
        sql
    }
}

/// The statements that remove a sink's progress; the table goes with its last row.
#[derive(Clone, Debug)]
pub struct Removal {
    /// Begins the transaction, when it is this sink's turn.
    pub begin: String,
    /// Asks whether there is a progress table.
    pub known: String,
    /// Removes the sink's row.
    pub row: String,
    /// Asks whether other sinks have rows.
    pub used: String,
    /// Removes the table.
    pub table: String,
}

impl Removal {
    /// Of the sink of this id.
    pub fn new(names: &Names, sink: uuid::Uuid) -> Self {
        let progress = &names.progress;
        Removal {
            begin: format!("BEGIN; SET LOCAL lock_timeout = '10s'; {TURN}"),
            known: format!("SELECT to_regclass({}) IS NOT NULL", literal(progress)),
            row: format!("DELETE FROM {progress} WHERE sink_id = '{sink}'"),
            used: format!("SELECT EXISTS (SELECT FROM {progress})"),
            table: format!("DROP TABLE {progress}"),
        }
    }
}

/// Whether both sides have one row of a key.
const CHANGE: &str = "_tidemill_change";

/// How many differing rows [`Statements::compare`] shows.
const SHOWN: usize = 20;

fn list<'a>(names: impl IntoIterator<Item = &'a str>) -> String {
    names.into_iter().map(quoted).collect::<Vec<_>>().join(", ")
}

/// What JSON is compared as.
fn json(sql_type: &SqlType) -> Option<&'static str> {
    match sql_type {
        SqlType::Json | SqlType::Jsonb => Some("jsonb"),
        SqlType::Array(element) => json(element).map(|_| "jsonb[]"),
        _ => None,
    }
}

/// A text as SQL, whatever the server makes of backslashes.
pub fn literal(text: &str) -> String {
    let escaped = text.replace('\'', "''");
    if escaped.contains('\\') {
        format!("E'{}'", escaped.replace('\\', "\\\\"))
    } else {
        format!("'{escaped}'")
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::datatypes::{DataType, Field, Schema};

    use super::*;
    use crate::connectors::postgres::sink::columns::columns;

    fn statements(key: &[usize], append_only: bool) -> Statements {
        let schema = Arc::new(Schema::new(vec![
            Field::new("id", DataType::Int64, false),
            Field::new("Place", DataType::Utf8View, true),
            Field::new("n", DataType::Int32, true),
        ]));
        let shape = Shape::new(schema.clone(), key, append_only);
        Statements::new(Names::new("t").unwrap(), shape, columns(&schema), uuid::Uuid::nil())
    }

    #[test]
    fn names() {
        let names = Names::new("Sales.\"by Day\"").unwrap();
        assert_eq!(names.target, r#""sales"."by Day""#);
        assert_eq!(names.progress, r#""sales".tidemill_progress"#);
        assert_eq!(Names::new("T").unwrap(), Names::new("public.t").unwrap());
        for wrong in ["", "a.b.c", "a;b", "'", "\"open"] {
            assert_eq!(Names::new(wrong).unwrap_err().sqlstate, SqlState::INVALID_PARAMETER_VALUE, "{wrong}");
        }
        assert_eq!(literal("it's a \\"), "E'it''s a \\\\'");
    }

    #[test]
    fn a_key_finds_its_row_by_an_index_and_where_it_is_null_apart() {
        let keyed = statements(&[0, 1], false);
        assert_eq!(
            keyed.create_target(),
            r#"CREATE TABLE "public"."t" ("id" bigint NOT NULL, "Place" text, "n" integer, UNIQUE ("id", "Place")); ALTER TABLE "public"."t" REPLICA IDENTITY FULL"#
        );
        assert_eq!(
            keyed.update(true),
            [
                r#"UPDATE "public"."t" t SET "n" = c."n" FROM pg_temp.tidemill_changes c WHERE c._tidemill_op = 'U' AND t."id" = c."id" AND t."Place" = c."Place""#,
                r#"UPDATE "public"."t" t SET "n" = c."n" FROM pg_temp.tidemill_changes c WHERE c._tidemill_op = 'U' AND t."id" IS NOT DISTINCT FROM c."id" AND t."Place" IS NOT DISTINCT FROM c."Place" AND (c."Place" IS NULL)"#,
            ]
        );
        assert_eq!(keyed.delete(false).len(), 1);
        assert!(
            keyed.insert().ends_with(r#"WHERE c._tidemill_op = 'I' ON CONFLICT ("id", "Place") DO NOTHING"#)
        );
        // Where the key is all there is, no row is ever replaced.
        assert!(statements(&[0, 1, 2], false).update(true).is_empty());
    }

    #[test]
    fn rows_without_a_key_are_told_apart_by_columns_of_the_sink_unless_they_only_grow() {
        let bag = statements(&[], false);
        assert!(bag.create_target().ends_with(
            r#"_tidemill_row text NOT NULL, _tidemill_seq bigint NOT NULL, PRIMARY KEY ("_tidemill_row", "_tidemill_seq"))"#
        ));
        assert!(bag.update(false).is_empty());
        let append = statements(&[], true);
        assert_eq!(
            append.insert(),
            r#"INSERT INTO "public"."t" ("id", "Place", "n") SELECT c."id", c."Place", c."n" FROM pg_temp.tidemill_changes c"#
        );
        assert!(!append.create_target().contains("tidemill"));
    }
}
