//! The text of every statement that the sink sends: what Redshift and PostgreSQL have in common, but for COPY and a few
//! types. Redshift has neither RETURNING nor ON CONFLICT, and its keys are promises that nobody checks.

use super::columns::Column;
use crate::connectors::postgres::sink::statements::literal;
use crate::connectors::postgres::tables::quoted;
use crate::connectors::warehouse::{Mode, Progress, Shape, column};
use crate::error::{Error, Result, SqlState};
use crate::names::{fold_str, name_parts};

/// The session's table that a batch is loaded to before it is applied.
const CHANGES: &str = "tidemill_changes";

/// The names of a sink's tables in Redshift, each as it stands in SQL.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Names {
    /// The schema's name, without quotes.
    pub schema: String,
    /// The target's name in it, without quotes.
    pub table: String,
    /// The table that is kept in step.
    pub target: String,
    /// The sink's progress: one row.
    pub progress: String,
}

impl Names {
    /// `table`: `t`, which is in `public`, or `s.t`.
    pub fn new(table: &str, sink: uuid::Uuid) -> Result<Names> {
        let parts = name_parts(table, fold_str);
        let (schema, name) = match parts.as_deref() {
            Some([name]) => ("public", name),
            Some([schema, name]) => (schema.as_str(), name),
            _ => {
                return Err(Error::new(
                    SqlState::INVALID_PARAMETER_VALUE,
                    format!("option \"table\" of REDSHIFT sink must be like public.orders, not \"{table}\""),
                ));
            }
        };
        let in_schema = |name: &str| format!("{}.{}", quoted(schema), quoted(name));
        Ok(Names {
            schema: schema.to_string(),
            table: name.clone(),
            target: in_schema(name),
            // Tables are locked as a whole: one for all sinks would have them wait for each other.
            progress: in_schema(&format!("tidemill_{}_progress", sink.simple())),
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
}

impl Statements {
    /// Statements about these tables.
    pub fn new(names: Names, shape: Shape, columns: Vec<Column>) -> Self {
        Statements { names, columns, shape }
    }

    /// Columns that the target has besides the relation's.
    pub fn own_columns(&self) -> &'static [&'static str] {
        match self.shape.mode {
            Mode::Bag => &[column::ROW, column::SEQ],
            Mode::Keyed(_) | Mode::Append => &[],
        }
    }

    fn own_types(&self) -> Vec<String> {
        let typed = |name: &&str| match *name {
            column::ROW => format!("{} VARCHAR(32)", own(name)),
            _ => format!("{} BIGINT", own(name)),
        };
        self.own_columns().iter().map(typed).collect()
    }

    /// Makes the progress table and its row, at nothing, and shuts out every writer that read it before.
    pub fn raise_fence(&self, sink: &str) -> Vec<String> {
        let progress = &self.names.progress;
        vec![
            format!(
                "CREATE TABLE IF NOT EXISTS {progress} (sink VARCHAR(256), target VARCHAR(512), generation BIGINT, \
                 fence BIGINT, tick BIGINT, updated_at TIMESTAMPTZ)"
            ),
            "BEGIN".to_string(),
            format!("LOCK {progress}"),
            format!(
                "INSERT INTO {progress} SELECT {}, {}, 0, 0, 0, NULL WHERE NOT EXISTS (SELECT 1 FROM {progress})",
                literal(sink),
                literal(&self.names.target)
            ),
            format!("UPDATE {progress} SET fence = fence + 1"),
            self.read_progress(),
            "COMMIT".to_string(),
        ]
    }

    /// Reads the progress row.
    pub fn read_progress(&self) -> String {
        format!("SELECT generation, fence, tick FROM {}", self.names.progress)
    }

    /// Waits for whoever else moves the progress row.
    pub fn lock_progress(&self) -> String {
        format!("LOCK {}", self.names.progress)
    }

    /// Moves the progress row, if it is exactly where it should be.
    pub fn advance(&self, from: Progress, to: Progress) -> String {
        format!(
            "UPDATE {} SET generation = {}, tick = {}, updated_at = CURRENT_TIMESTAMP \
             WHERE generation = {} AND fence = {} AND tick = {}",
            self.names.progress, to.generation, to.epoch, from.generation, from.fence, from.epoch
        )
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
        parts.extend(self.own_types());
        format!("CREATE TABLE IF NOT EXISTS {} ({})", self.names.target, parts.join(", "))
    }

    /// Asks for the target's columns: name, type with its size, and whether it must be given.
    pub fn describe_target(&self) -> String {
        format!(
            "SELECT column_name, data_type || CASE WHEN character_maximum_length IS NOT NULL \
             THEN '(' || CAST(character_maximum_length AS VARCHAR(20)) || ')' \
             WHEN data_type = 'numeric' AND numeric_precision IS NOT NULL \
             THEN '(' || CAST(numeric_precision AS VARCHAR(20)) || ',' || CAST(numeric_scale AS VARCHAR(20)) || ')' \
             ELSE '' END, CASE WHEN is_nullable = 'NO' AND column_default IS NULL THEN 't' ELSE 'f' END \
             FROM information_schema.columns WHERE table_schema = {} AND table_name = {}",
            literal(&self.names.schema),
            literal(&self.names.table)
        )
    }

    /// Asks how many rows the target has.
    pub fn count_target(&self) -> String {
        format!("SELECT COUNT(*) FROM {}", self.names.target)
    }

    /// Makes the session's table of changes, in the order in which they are staged.
    pub fn create_changes(&self) -> String {
        let mut parts = Vec::new();
        if self.shape.has_ops() {
            parts.push(format!("{} VARCHAR(1)", own(column::OP)));
        }
        parts.extend(self.own_types());
        parts.extend(self.columns.iter().map(|c| format!("{} {}", quoted(&c.name), c.staged_type)));
        format!("CREATE TEMP TABLE {CHANGES} ({})", parts.join(", "))
    }

    /// Forgets the batch before. Not TRUNCATE, which commits.
    pub fn clear_changes() -> String {
        format!("DELETE FROM {CHANGES}")
    }

    /// Loads the files that a manifest lists. `role`: an ARN, several in a chain, or `default`.
    pub fn copy(manifest: &str, role: &str) -> String {
        let role = if role == "default" { role.to_string() } else { literal(role) };
        format!("COPY {CHANGES} FROM {} IAM_ROLE {role} FORMAT AS PARQUET MANIFEST", literal(manifest))
    }

    /// Asks how many rows were loaded.
    pub fn count_changes() -> String {
        format!("SELECT COUNT(*) FROM {CHANGES}")
    }

    /// Removes all rows of the target.
    pub fn clear_target(&self) -> String {
        format!("DELETE FROM {}", self.names.target)
    }

    /// Gives the rows of a batch the numbers of the copies that they are in the target: new ones come after
    /// those that are there, and of those that go away the last go first.
    pub fn number_copies(&self) -> String {
        let (op, row, seq) = (own(column::OP), own(column::ROW), own(column::SEQ));
        format!(
            "UPDATE {CHANGES} SET {seq} = CASE {op} WHEN 'I' THEN n.n + {seq} ELSE n.n - 1 - {seq} END \
             FROM (SELECT {row} AS r, COUNT(*) AS n FROM {target} WHERE {row} IN (SELECT {row} FROM {CHANGES}) \
             GROUP BY {row}) n WHERE {CHANGES}.{row} = n.r",
            target = self.names.target,
        )
    }

    /// The columns that tell the target's rows apart: as they stand there, as values of a batch, and whether they can be NULL.
    fn key(&self) -> Vec<(String, String, bool)> {
        match &self.shape.mode {
            Mode::Keyed(key) => key
                .iter()
                .map(|&k| {
                    let column = &self.columns[k];
                    let name = quoted(&column.name);
                    let value = column.converted(&format!("{CHANGES}.{name}"));
                    (name, value, column.nullable)
                })
                .collect(),
            Mode::Bag => [column::ROW, column::SEQ]
                .iter()
                .map(|name| (own(name), format!("{CHANGES}.{}", own(name)), false))
                .collect(),
            Mode::Append => Vec::new(),
        }
    }

    /// The condition that a row of the target is the one that a row of a batch means.
    fn matches(&self) -> String {
        let target = &self.names.target;
        let each = self.key().into_iter().map(|(name, value, nullable)| {
            let equal = format!("{target}.{name} = {value}");
            match nullable {
                false => equal,
                true => format!("({equal} OR {target}.{name} IS NULL AND {value} IS NULL)"),
            }
        });
        each.collect::<Vec<_>>().join(" AND ")
    }

    /// Removes the rows of the target that a batch says go away.
    pub fn delete(&self) -> String {
        format!(
            "DELETE FROM {} USING {CHANGES} WHERE {CHANGES}.{} = 'D' AND {}",
            self.names.target,
            own(column::OP),
            self.matches()
        )
    }

    /// Replaces the rows of the target that a batch says are others now; `None`: a key is all there is.
    pub fn update(&self) -> Option<String> {
        let Mode::Keyed(key) = &self.shape.mode else { return None };
        let set: Vec<String> = (0..self.columns.len())
            .filter(|c| !key.contains(c))
            .map(|c| {
                let name = quoted(&self.columns[c].name);
                format!("{name} = {}", self.columns[c].converted(&format!("{CHANGES}.{name}")))
            })
            .collect();
        (!set.is_empty()).then(|| {
            format!(
                "UPDATE {} SET {} FROM {CHANGES} WHERE {CHANGES}.{} = 'U' AND {}",
                self.names.target,
                set.join(", "),
                own(column::OP),
                self.matches()
            )
        })
    }

    /// Adds the rows that a batch says are new. One whose key is there already is left out, which the count tells.
    pub fn insert(&self) -> String {
        let mut names: Vec<String> = self.columns.iter().map(|c| quoted(&c.name)).collect();
        let mut values: Vec<String> =
            self.columns.iter().map(|c| c.converted(&format!("{CHANGES}.{}", quoted(&c.name)))).collect();
        for name in self.own_columns() {
            names.push(own(name));
            values.push(format!("{CHANGES}.{}", own(name)));
        }
        let target = &self.names.target;
        let mut sql = format!(
            "INSERT INTO {target} ({}) SELECT {} FROM {CHANGES}",
            names.join(", "),
            values.join(", ")
        );
        if self.shape.has_ops() {
            sql.push_str(&format!(
                " WHERE {CHANGES}.{} = 'I' AND NOT EXISTS (SELECT 1 FROM {target} WHERE {})",
                own(column::OP),
                self.matches()
            ));
        }
        sql
    }

    /// Removes what a sink made besides its target.
    pub fn drop_progress(names: &Names) -> String {
        format!("DROP TABLE IF EXISTS {}", names.progress)
    }
}

/// A column of the sink's own, as Redshift folds names.
pub fn own(name: &str) -> String {
    quoted(&name.to_lowercase())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::connectors::redshift::columns::columns;
    use crate::connectors::warehouse::schema_of;
    use arrow::datatypes::{DataType, Field};

    fn statements(key: &[usize]) -> Statements {
        let schema = schema_of(vec![
            Field::new("id", DataType::Int64, false),
            Field::new("at", DataType::Binary, true),
        ]);
        let names = Names::new("Sales.T", uuid::Uuid::from_u128(0xab)).unwrap();
        Statements::new(names, Shape::new(schema.clone(), key, false), columns(&schema).unwrap())
    }

    #[test]
    fn names_and_loading() {
        let names = &statements(&[0]).names;
        assert_eq!(names.target, r#""sales"."t""#);
        assert_eq!(names.progress, r#""sales"."tidemill_000000000000000000000000000000ab_progress""#);
        assert_eq!(
            Statements::copy("s3://b/p/manifest", "arn:aws:iam::1:role/r"),
            "COPY tidemill_changes FROM 's3://b/p/manifest' IAM_ROLE 'arn:aws:iam::1:role/r' FORMAT AS PARQUET MANIFEST"
        );
        assert!(Statements::copy("m", "default").contains("IAM_ROLE default FORMAT"));
        assert_eq!(
            Names::new("a.b.c", uuid::Uuid::nil()).unwrap_err().sqlstate,
            SqlState::INVALID_PARAMETER_VALUE
        );
    }

    #[test]
    fn rows_are_found_by_their_key_where_it_is_null_as_well() {
        assert_eq!(
            statements(&[0]).update().unwrap(),
            r#"UPDATE "sales"."t" SET "at" = FROM_HEX(tidemill_changes."at") FROM tidemill_changes WHERE tidemill_changes."_tidemill_op" = 'U' AND "sales"."t"."id" = tidemill_changes."id""#
        );
        assert!(statements(&[0, 1]).update().is_none());
        assert!(statements(&[1]).delete().ends_with(
            r#"("sales"."t"."at" = FROM_HEX(tidemill_changes."at") OR "sales"."t"."at" IS NULL AND FROM_HEX(tidemill_changes."at") IS NULL)"#
        ));
        assert!(
            statements(&[])
                .create_target()
                .ends_with(r#""_tidemill_row" VARCHAR(32), "_tidemill_seq" BIGINT)"#)
        );
    }
}
