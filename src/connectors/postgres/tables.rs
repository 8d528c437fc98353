//! The tables of a publication: columns as ours, and the key by which changes address rows.

use std::sync::Arc;

use arrow::datatypes::{Field, Schema};
use tokio_postgres::GenericClient;

use super::pgoutput::Relation;
use super::settings::failed;
use crate::connectors::shapes::UpstreamTable;
use crate::error::{Error, Result, SqlState};
use crate::types::SqlType;

/// A published table.
#[derive(Clone, Debug, PartialEq)]
pub struct PublishedTable {
    /// Schema upstream.
    pub namespace: String,
    /// Name upstream.
    pub table: String,
    /// Its published columns, and its key: the replica identity's index, or the primary key.
    pub upstream: UpstreamTable,
    /// The columns' types and modifiers by PostgreSQL's numbers, as the replication stream tells them.
    pub types: Vec<(u32, i32)>,
    /// Which table it is, and since when it is published: another one when it was made or published anew.
    pub identity: String,
    /// Partitioned tables are read through their root, others without their children.
    pub partitioned: bool,
    /// The publication's row filter, an SQL condition.
    pub row_filter: Option<String>,
}

impl PublishedTable {
    /// Whether the stream's description is of the table as it is now.
    pub fn is_described_by(&self, relation: &Relation) -> bool {
        let names = self.upstream.schema.fields().iter().map(|f| f.name());
        names.eq(&relation.columns) && self.types == relation.types
    }
}

/// A name as an SQL identifier.
pub fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

// Column lists and row filters came with version 15; through JSON the same statement serves older servers.
const COLUMNS: &str = "
SELECT n.nspname, c.relname, a.attname,
       CASE WHEN t.typtype = 'd' THEN t.typbasetype ELSE a.atttypid END,
       CASE WHEN t.typtype = 'd' THEN t.typtypmod ELSE a.atttypmod END,
       a.attnotnull, c.relkind = 'p',
       to_jsonb(p) ->> 'rowfilter',
       array_position(i.indkey::int2[], a.attnum), a.atttypid, a.atttypmod,
       a.atthasdef OR a.atthasmissing OR a.attnotnull OR a.attidentity <> '',
       concat_ws('/', b.oid, c.oid, r.oid)
FROM pg_publication_tables p
JOIN pg_namespace n ON n.nspname = p.schemaname
JOIN pg_class c ON c.relnamespace = n.oid AND c.relname = p.tablename
JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped AND a.attgenerated = ''
  AND (NOT to_jsonb(p) ? 'attnames' OR to_jsonb(p) -> 'attnames' ? a.attname::text)
JOIN pg_type t ON t.oid = a.atttypid
JOIN pg_publication b ON b.pubname = p.pubname
LEFT JOIN pg_publication_rel r ON r.prpubid = b.oid AND r.prrelid = c.oid
LEFT JOIN pg_index i ON i.indrelid = c.oid
  AND CASE WHEN c.relreplident = 'i' THEN i.indisreplident ELSE i.indisprimary END
WHERE p.pubname = $1
ORDER BY 1, 2, a.attnum";

/// The tables that a publication holds now.
///
/// # Errors
/// 42704 when there is no such publication; 08006 when the server fails.
pub async fn of_publication(client: &impl GenericClient, publication: &str) -> Result<Vec<PublishedTable>> {
    let known = client
        .query_opt("SELECT 1 FROM pg_publication WHERE pubname = $1", &[&publication])
        .await
        .map_err(|e| failed("reading the publication", &e))?;
    if known.is_none() {
        return Err(Error::new(
            SqlState::UNDEFINED_OBJECT,
            format!("publication \"{publication}\" does not exist on the PostgreSQL server"),
        )
        .with_hint(format!("Upstream: CREATE PUBLICATION {publication} FOR ALL TABLES;")));
    }
    let rows = client
        .query(COLUMNS, &[&publication])
        .await
        .map_err(|e| failed("reading the publication's tables", &e))?;
    let mut tables: Vec<PublishedTable> = Vec::new();
    let mut fields: Vec<Field> = Vec::new();
    let mut key: Vec<(i32, usize)> = Vec::new();
    for row in &rows {
        let (namespace, table): (String, String) = (row.get(0), row.get(1));
        if tables.last().is_none_or(|t| t.namespace != namespace || t.table != table) {
            finish(&mut tables, &mut fields, &mut key);
            tables.push(PublishedTable {
                upstream: UpstreamTable {
                    name: format!("{namespace}.{table}"),
                    schema: Arc::new(Schema::empty()),
                    key: Vec::new(),
                    filled: Vec::new(),
                },
                namespace,
                table,
                types: Vec::new(),
                identity: row.get(12),
                partitioned: row.get(6),
                row_filter: row.get(7),
            });
        }
        if let Some(place) = row.get::<_, Option<i32>>(8) {
            key.push((place, fields.len()));
        }
        if let Some(table) = tables.last_mut() {
            table.types.push((row.get(9), row.get(10)));
            if row.get(11) {
                table.upstream.filled.push(row.get(2));
            }
        }
        let not_null: bool = row.get(5);
        fields.push(column_type(row.get(3), row.get(4)).field(row.get::<_, String>(2), !not_null));
    }
    finish(&mut tables, &mut fields, &mut key);
    Ok(tables)
}

fn finish(tables: &mut [PublishedTable], fields: &mut Vec<Field>, key: &mut Vec<(i32, usize)>) {
    if let Some(table) = tables.last_mut() {
        table.upstream.schema = Arc::new(Schema::new(std::mem::take(fields)));
        key.sort_unstable();
        table.upstream.key = std::mem::take(key).into_iter().map(|(_, position)| position).collect();
    }
}

/// Our type of a column; what we have no type for (enums, composites, ranges, …) comes as text.
fn column_type(oid: u32, modifier: i32) -> SqlType {
    match SqlType::from_oid(oid) {
        Some(SqlType::Numeric(_)) if modifier >= 4 => {
            let packed = modifier - 4;
            let (precision, scale) = ((packed >> 16) & 0xffff, packed & 0x7ff);
            match (u8::try_from(precision), i8::try_from(scale)) {
                (Ok(p), Ok(s)) if p <= 38 && s <= 38 => SqlType::Numeric(Some((p, s))),
                _ => SqlType::Text,
            }
        }
        Some(SqlType::Varchar(_)) if modifier >= 4 => SqlType::Varchar(u32::try_from(modifier - 4).ok()),
        Some(SqlType::Char(_)) if modifier >= 4 => SqlType::Char((modifier - 4) as u32),
        Some(SqlType::Name | SqlType::Regclass | SqlType::Regtype | SqlType::Regproc) | None => SqlType::Text,
        Some(known) => known,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types_follow_the_modifier() {
        assert_eq!(column_type(1700, ((12 << 16) | 2) + 4), SqlType::Numeric(Some((12, 2))));
        assert_eq!(column_type(1700, -1), SqlType::Numeric(None));
        assert_eq!(column_type(1700, ((60 << 16) | 2) + 4), SqlType::Text);
        assert_eq!(column_type(1043, 14), SqlType::Varchar(Some(10)));
        assert_eq!(column_type(424_242, -1), SqlType::Text);
    }
}
