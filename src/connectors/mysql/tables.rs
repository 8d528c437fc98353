//! The server's tables: which of them a source may follow, their columns as ours, and their keys.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use arrow::datatypes::{Field, Schema};
use mysql_async::prelude::Queryable;
use mysql_async::{Conn, Row};

use super::settings::failed;
use super::values::charset_is_known;
use crate::connectors::SourceOutput;
use crate::connectors::shapes::UpstreamTable;
use crate::error::{Error, Result, SqlState};
use crate::types::SqlType;

/// `shop.*, crm.users`: names of tables, in which `*` stands for any letters.
#[derive(Clone, Debug, PartialEq)]
pub struct Patterns(Vec<(String, String)>);

impl FromStr for Patterns {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let one = |pattern: &str| {
            let (database, table) = pattern.trim().split_once('.')?;
            (!database.is_empty() && !table.is_empty()).then(|| (database.to_string(), table.to_string()))
        };
        text.split(',').map(one).collect::<Option<_>>().map(Patterns).ok_or_else(|| {
            Error::new(
                SqlState::INVALID_PARAMETER_VALUE,
                format!("option \"tables\" of MYSQL source must be a list like 'shop.*, crm.users', not \"{text}\""),
            )
        })
    }
}

impl fmt::Display for Patterns {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, (database, table)) in self.0.iter().enumerate() {
            write!(f, "{}{database}.{table}", if i == 0 { "" } else { ", " })?;
        }
        Ok(())
    }
}

impl Patterns {
    fn matches(&self, database: &str, table: &str) -> bool {
        self.0.iter().any(|(d, t)| like(d, database) && like(t, table))
    }
}

fn like(pattern: &str, name: &str) -> bool {
    match pattern.split_once('*') {
        None => pattern == name,
        Some((start, rest)) => name.strip_prefix(start).is_some_and(|tail| {
            tail.char_indices().map(|(i, _)| i).chain([tail.len()]).any(|i| like(rest, &tail[i..]))
        }),
    }
}

/// A name as an SQL identifier of MySQL's.
pub fn quoted(name: &str) -> String {
    format!("`{}`", name.replace('`', "``"))
}

const COLUMNS: &str = "
SELECT c.TABLE_SCHEMA, c.TABLE_NAME, c.COLUMN_NAME, c.DATA_TYPE, c.COLUMN_TYPE, c.IS_NULLABLE = 'YES',
       c.NUMERIC_PRECISION, c.NUMERIC_SCALE, c.CHARACTER_SET_NAME, s.SEQ_IN_INDEX, s.SUB_PART IS NOT NULL,
       c.IS_NULLABLE <> 'YES' OR coalesce(c.COLUMN_DEFAULT, 'NULL') <> 'NULL' OR c.EXTRA LIKE '%GENERATED%'
FROM information_schema.COLUMNS c
JOIN information_schema.TABLES t
  ON t.TABLE_SCHEMA = c.TABLE_SCHEMA AND t.TABLE_NAME = c.TABLE_NAME AND t.TABLE_TYPE = 'BASE TABLE'
LEFT JOIN information_schema.STATISTICS s
  ON s.TABLE_SCHEMA = c.TABLE_SCHEMA AND s.TABLE_NAME = c.TABLE_NAME AND s.COLUMN_NAME = c.COLUMN_NAME
  AND s.INDEX_NAME = 'PRIMARY'
WHERE c.TABLE_SCHEMA NOT IN ('mysql', 'sys', 'information_schema', 'performance_schema')
  AND c.EXTRA NOT LIKE '%VIRTUAL GENERATED%'
ORDER BY c.TABLE_SCHEMA, c.TABLE_NAME, c.ORDINAL_POSITION";

/// MariaDB's JSON columns are text that a constraint keeps well-formed.
const JSON_CHECKS: &str = "
SELECT CONSTRAINT_SCHEMA, TABLE_NAME, CHECK_CLAUSE FROM information_schema.CHECK_CONSTRAINTS
WHERE CHECK_CLAUSE LIKE 'json\\_valid(%'";

/// The tables that `patterns` name, as they are now.
///
/// # Errors
/// 08006 when the server fails; 0A000 for a column of a type or character set without a counterpart here.
pub async fn matching(session: &mut Conn, patterns: &Patterns) -> Result<Vec<UpstreamTable>> {
    read(session, |database, table| patterns.matches(database, table), |_, e| Err(e)).await
}

/// The tables that fill these outputs, as they are now; one that is gone is not among them. Columns that are not in an
/// output and that nothing here could be made of are left out.
///
/// # Errors
/// 08006 when the server fails; 0A000 for a column of an output whose type has no counterpart any more.
pub async fn of_outputs(session: &mut Conn, outputs: &[SourceOutput]) -> Result<Vec<UpstreamTable>> {
    let output = |database: &str, table: &str| {
        outputs.iter().find(|o| o.upstream.split_once('.') == Some((database, table)))
    };
    let needed = |column: &Column, e: Error| {
        let output = output(&column.database, &column.table);
        match output.is_some_and(|o| o.schema.field_with_name(&column.name).is_ok()) {
            true => Err(e),
            false => Ok(()),
        }
    };
    read(session, |database, table| output(database, table).is_some(), needed).await
}

/// `unreadable` says whether a column that nothing can be made of is left out.
async fn read(
    session: &mut Conn,
    wanted: impl Fn(&str, &str) -> bool,
    unreadable: impl Fn(&Column, Error) -> Result<()>,
) -> Result<Vec<UpstreamTable>> {
    // MySQL has no column TABLE_NAME there, and no need of it: its JSON columns say what they are.
    let json: Vec<(String, String, String)> = session.query(JSON_CHECKS).await.unwrap_or_default();
    let rows: Vec<Row> =
        session.query(COLUMNS).await.map_err(|e| failed("reading the server's tables", &e))?;
    let mut found: Vec<Table> = Vec::new();
    for row in rows {
        let column = Column::read(row)?;
        if !wanted(&column.database, &column.table) {
            continue;
        }
        let upstream = format!("{}.{}", column.database, column.table);
        if found.last().is_none_or(|t| t.upstream != upstream) {
            found.push(Table { upstream, ..Table::default() });
        }
        let Some(table) = found.last_mut() else { continue };
        let checked = format!("json_valid({})", quoted(&column.name));
        let is_json =
            json.iter().any(|(d, t, check)| *d == column.database && *t == column.table && *check == checked);
        let sql_type = match column.sql_type() {
            _ if is_json => SqlType::Jsonb,
            Ok(sql_type) => sql_type,
            Err(e) => {
                unreadable(&column, e)?;
                continue;
            }
        };
        if let Some(place) = column.key_place {
            table.key.push((place, table.fields.len()));
        }
        table.key_of_prefixes |= column.key_prefix;
        if column.filled {
            table.filled.push(column.name.clone());
        }
        // A zero date comes as NULL, whatever the column promises.
        let zero_date = matches!(sql_type, SqlType::Date | SqlType::Timestamp | SqlType::Timestamptz);
        let nullable = column.nullable || (zero_date && column.key_place.is_none());
        table.fields.push(sql_type.field(column.name, nullable));
    }
    Ok(found.into_iter().map(Table::finish).collect())
}

#[derive(Default)]
struct Table {
    upstream: String,
    fields: Vec<Field>,
    key: Vec<(u64, usize)>,
    /// Columns that may have a value in rows that were there before the column.
    filled: Vec<String>,
    /// A key of the first letters of columns does not tell rows apart as whole columns do.
    key_of_prefixes: bool,
}

impl Table {
    fn finish(mut self) -> UpstreamTable {
        self.key.sort_unstable();
        let key = if self.key_of_prefixes { Vec::new() } else { self.key.iter().map(|(_, i)| *i).collect() };
        let schema = Arc::new(Schema::new(self.fields));
        UpstreamTable { name: self.upstream, schema, key, filled: self.filled }
    }
}

struct Column {
    database: String,
    table: String,
    name: String,
    data_type: String,
    column_type: String,
    nullable: bool,
    precision: Option<u64>,
    scale: Option<u64>,
    charset: Option<String>,
    key_place: Option<u64>,
    key_prefix: bool,
    filled: bool,
}

impl Column {
    fn read(row: Row) -> Result<Self> {
        let unreadable =
            || Error::new(SqlState::PROTOCOL_VIOLATION, "unreadable answer of information_schema");
        fn get<T: mysql_async::prelude::FromValue>(row: &Row, i: usize) -> Option<T> {
            row.get_opt(i)?.ok()
        }
        let text = |i| get::<String>(&row, i).ok_or_else(unreadable);
        Ok(Column {
            database: text(0)?,
            table: text(1)?,
            name: text(2)?,
            data_type: text(3)?.to_ascii_lowercase(),
            column_type: text(4)?.to_ascii_lowercase(),
            nullable: get::<i64>(&row, 5).ok_or_else(unreadable)? == 1,
            precision: get::<Option<u64>>(&row, 6).flatten(),
            scale: get::<Option<u64>>(&row, 7).flatten(),
            charset: get::<Option<String>>(&row, 8).flatten(),
            key_place: get::<Option<u64>>(&row, 9).flatten(),
            key_prefix: get::<i64>(&row, 10).unwrap_or(0) == 1,
            filled: get::<i64>(&row, 11).unwrap_or(1) == 1,
        })
    }

    /// Our type of it.
    fn sql_type(&self) -> Result<SqlType> {
        if let Some(charset) = self.charset.as_deref().filter(|c| !charset_is_known(c)) {
            return Err(Error::unsupported(format!("the character set {charset} of {}", self.place()))
                .with_hint("Upstream: ALTER TABLE … CONVERT TO CHARACTER SET utf8mb4; or leave the table out of the option tables."));
        }
        let unsigned = self.column_type.contains("unsigned");
        Ok(match self.data_type.as_str() {
            "tinyint" => SqlType::Int2,
            "smallint" if unsigned => SqlType::Int4,
            "smallint" => SqlType::Int2,
            "mediumint" | "year" => SqlType::Int4,
            "int" | "integer" if unsigned => SqlType::Int8,
            "int" | "integer" => SqlType::Int4,
            "bigint" if unsigned => SqlType::Numeric(Some((20, 0))),
            "bigint" => SqlType::Int8,
            "float" => SqlType::Float4,
            "double" | "real" => SqlType::Float8,
            "decimal" | "numeric" => match (self.precision, self.scale) {
                (Some(p), Some(s)) if p <= 38 => SqlType::Numeric(Some((p as u8, s as i8))),
                _ => SqlType::Text,
            },
            "bit" => match self.precision {
                Some(1) => SqlType::Bool,
                _ => SqlType::Numeric(Some((20, 0))),
            },
            "date" => SqlType::Date,
            "time" => SqlType::Time,
            "datetime" => SqlType::Timestamp,
            "timestamp" => SqlType::Timestamptz,
            "char" | "varchar" | "tinytext" | "text" | "mediumtext" | "longtext" | "enum" | "set" => {
                SqlType::Text
            }
            "json" => SqlType::Jsonb,
            "binary" | "varbinary" | "tinyblob" | "blob" | "mediumblob" | "longblob" => SqlType::Bytea,
            other => {
                return Err(Error::unsupported(format!("the type {other} of {}", self.place()))
                    .with_hint("Leave the table out of the option tables."));
            }
        })
    }

    fn place(&self) -> String {
        format!("column \"{}\" of {}.{}", self.name, self.database, self.table)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stars_stand_for_any_letters() {
        let patterns: Patterns = "shop.*, crm.user*_v2".parse().unwrap();
        for (database, table, wanted) in [
            ("shop", "orders", true),
            ("shop2", "orders", false),
            ("crm", "user_v2", true),
            ("crm", "users_eu_v2", true),
            ("crm", "users_v3", false),
        ] {
            assert_eq!(patterns.matches(database, table), wanted, "{database}.{table}");
        }
        assert_eq!("shop".parse::<Patterns>().unwrap_err().sqlstate.0, "22023");
    }
}
