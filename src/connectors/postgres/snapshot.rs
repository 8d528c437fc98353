//! The first copy of the tables, and which replicated transactions are already in it.
//!
//! The slot is made first, then a repeatable-read transaction reads the tables. A transaction that the slot replays
//! is in the copy exactly if PostgreSQL's own snapshot of that reading transaction shows it
//! (`pg_current_snapshot()`: xmin, xmax and the ids in between that were running), so each one is counted once
//! without having to export a snapshot over the replication protocol.

use std::collections::BTreeMap;

use futures::{StreamExt, pin_mut};
use pgwire_replication::Lsn;
use serde::{Deserialize, Serialize};
use tokio_postgres::Client;

use super::settings::{SourceSettings, failed};
use super::tables::{self, PublishedTable, quoted};
use crate::connectors::gathered::{CopyProgress, Gathered};
use crate::connectors::replicated::{Effect, Value};
use crate::connectors::shapes::{Noted, changed_before_copy, readable};
use crate::connectors::{Status, StopFlag};
use crate::error::{Error, Result, SqlState};

/// A durable place in the upstream's log.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Position {
    /// End of the last transaction that was handed over.
    pub lsn: u64,
    /// What the first copy already held.
    pub copied: Copied,
    /// The tables that the copy was of, by our numbers: one that came later must be copied first.
    #[serde(default)]
    pub tables: Vec<u64>,
    /// With which columns the rows were read.
    #[serde(default)]
    pub noted: Noted,
    /// Which tables upstream the rows are of, by our numbers.
    #[serde(default)]
    pub identities: Identities,
}

/// [`PublishedTable::identity`] of the tables that are followed, by our numbers.
pub type Identities = BTreeMap<u64, String>;

/// The transactions that the first copy saw.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Copied {
    /// Commits after this place were certainly not seen.
    until_lsn: u64,
    xmin: u64,
    xmax: u64,
    running: Vec<u64>,
}

impl Copied {
    fn parse(snapshot: &str, until_lsn: u64) -> Option<Self> {
        let mut parts = snapshot.splitn(3, ':');
        let (xmin, xmax) = (parts.next()?.parse().ok()?, parts.next()?.parse().ok()?);
        let running = match parts.next()? {
            "" => Vec::new(),
            list => list.split(',').map(|x| x.parse().ok()).collect::<Option<_>>()?,
        };
        Some(Copied { until_lsn, xmin, xmax, running })
    }

    /// Whether the transaction `xid`, whose commit record stands at `commit`, is in the copy.
    pub fn has(&self, xid: u32, commit: Lsn) -> bool {
        if commit.as_u64() > self.until_lsn {
            return false;
        }
        // The stream tells the low half of the id; the snapshot is near enough to give the other half.
        let distance = i64::from(xid.wrapping_sub(self.xmax as u32) as i32);
        let xid = self.xmax.wrapping_add_signed(distance);
        xid < self.xmin || (xid < self.xmax && !self.running.contains(&xid))
    }
}

/// About how many rows tables have, as the server last counted.
const ROWS: &str = "
SELECT coalesce(sum(greatest(c.reltuples, 0)), 0)::bigint FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE n.nspname || '.' || c.relname = ANY ($1)";

/// The state of our slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Slot {
    /// There is none, or its log is gone.
    Missing,
    /// It is there.
    Usable,
}

/// Looks at the slot.
///
/// # Errors
/// 55006 when the name belongs to a slot of another kind; 08006 when the server fails.
pub async fn slot(client: &Client, slot: &str) -> Result<Slot> {
    let row = client
        .query_opt(
            "SELECT coalesce(plugin, ''), database IS NOT DISTINCT FROM current_database(),
                    coalesce(wal_status, '') = 'lost'
             FROM pg_replication_slots WHERE slot_name = $1",
            &[&slot],
        )
        .await
        .map_err(|e| failed("looking for the replication slot", &e))?;
    let Some(row) = row else { return Ok(Slot::Missing) };
    let (plugin, here): (String, bool) = (row.get(0), row.get(1));
    if plugin != "pgoutput" || !here {
        return Err(Error::new(
            SqlState::OBJECT_IN_USE,
            format!(
                "replication slot \"{slot}\" exists upstream and is not one of pgoutput in this database"
            ),
        )
        .with_hint("Give the source another name for its slot: (…, slot = 'another')."));
    }
    Ok(if row.get(2) { Slot::Missing } else { Slot::Usable })
}

/// Drops the slot if it is there.
///
/// # Errors
/// 55006 when somebody reads it; 08006 when the server fails.
pub async fn drop_slot(client: &Client, slot: &str) -> Result<()> {
    let dropped = client
        .query(
            "SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE slot_name = $1",
            &[&slot],
        )
        .await;
    match dropped {
        Ok(_) => Ok(()),
        Err(e) if e.code().is_some_and(|c| c.code() == SqlState::OBJECT_IN_USE.0) => Err(Error::new(
            SqlState::OBJECT_IN_USE,
            format!("replication slot \"{slot}\" is being read by somebody else"),
        )),
        Err(e) => Err(failed("dropping the replication slot", &e)),
    }
}

/// Makes the slot anew and copies the tables into their builders; the answer is where the stream goes on, and what of
/// it is in the copy.
///
/// # Errors
/// 08006 when the server fails, 57014 when told to stop.
pub async fn copy(
    client: &mut Client,
    settings: &SourceSettings,
    tables: &[PublishedTable],
    gathered: &mut Gathered,
    status: &Status,
    stop: &StopFlag,
) -> Result<(u64, Copied)> {
    let Gathered { builders, bad } = gathered;
    let slot = settings.slot.as_str();
    drop_slot(client, slot).await?;
    let row = client
        .query_one("SELECT lsn::text FROM pg_create_logical_replication_slot($1, 'pgoutput')", &[&slot])
        .await
        .map_err(|e| failed("creating the replication slot", &e))?;
    let start = lsn(row.get(0))?;
    let transaction = client
        .build_transaction()
        .isolation_level(tokio_postgres::IsolationLevel::RepeatableRead)
        .read_only(true)
        .start()
        .await
        .map_err(|e| failed("starting the snapshot", &e))?;
    let row = transaction
        .query_one("SELECT pg_current_snapshot()::text, pg_current_wal_insert_lsn()::text", &[])
        .await
        .map_err(|e| failed("taking the snapshot", &e))?;
    let text: String = row.get(0);
    let copied = Copied::parse(&text, lsn(row.get(1))?)
        .ok_or_else(|| Error::new(SqlState::PROTOCOL_VIOLATION, format!("unreadable snapshot \"{text}\"")))?;
    // A column that the snapshot has and the copy leaves out would be missed for good.
    if tables::of_publication(&transaction, &settings.publication).await? != tables {
        return Err(changed_before_copy());
    }
    let names: Vec<&str> = tables.iter().map(|t| t.upstream.name.as_str()).collect();
    let row = transaction.query_one(ROWS, &[&names]).await.map_err(|e| failed("counting the rows", &e))?;
    let mut progress = CopyProgress::begin(status, row.get::<_, i64>(0).max(0).cast_unsigned());
    for builder in builders {
        builder.truncate()?;
        let name = builder.output().upstream.clone();
        let Some(table) = tables.iter().find(|t| t.upstream.name == name) else { continue };
        let readable = readable(builder.output(), &table.upstream.schema);
        let columns: Vec<String> = readable.iter().map(|(_, name)| quoted(name)).collect();
        let only = if table.partitioned { "" } else { "ONLY " };
        let condition = table.row_filter.as_ref().map_or(String::new(), |f| format!(" WHERE {f}"));
        let statement = format!(
            "COPY (SELECT {} FROM {only}{}.{}{condition}) TO STDOUT",
            columns.join(", "),
            quoted(&table.namespace),
            quoted(&table.table),
        );
        let stream =
            transaction.copy_out(&statement).await.map_err(|e| failed(&format!("copying {name}"), &e))?;
        pin_mut!(stream);
        let place = |column| readable.iter().position(|(at, _)| *at == column).unwrap_or(usize::MAX);
        let places: Vec<usize> = (0..builder.output().schema.fields().len()).map(place).collect();
        let mut lines = Lines::default();
        while let Some(chunk) = stream.next().await {
            let chunk = chunk.map_err(|e| failed(&format!("copying {name}"), &e))?;
            lines.feed(&chunk, |fields| {
                let tuple = fields.iter().map(|f| f.as_deref().map_or(Value::Null, Value::Text)).collect();
                bad.extend(builder.push(Effect::Put, &tuple, &places, "snapshot")?);
                if progress.row() && stop.is_set() {
                    return Err(Error::new(SqlState::QUERY_CANCELED, "the snapshot was interrupted"));
                }
                Ok(())
            })?;
        }
    }
    transaction.commit().await.map_err(|e| failed("ending the snapshot", &e))?;
    Ok((start, copied))
}

fn lsn(text: &str) -> Result<u64> {
    Lsn::parse(text)
        .map(Lsn::as_u64)
        .map_err(|_| Error::new(SqlState::PROTOCOL_VIOLATION, format!("unreadable log position \"{text}\"")))
}

/// Splits COPY's text format into rows of fields, across chunks.
#[derive(Default)]
struct Lines {
    rest: Vec<u8>,
    fields: Vec<Option<String>>,
}

impl Lines {
    fn feed(&mut self, chunk: &[u8], mut row: impl FnMut(&[Option<String>]) -> Result<()>) -> Result<()> {
        self.rest.extend_from_slice(chunk);
        let mut start = 0;
        while let Some(end) = self.rest[start..].iter().position(|b| *b == b'\n') {
            let line = &self.rest[start..start + end];
            self.fields.clear();
            for field in line.split(|b| *b == b'\t') {
                self.fields.push(unescape(field)?);
            }
            row(&self.fields)?;
            start += end + 1;
        }
        self.rest.drain(..start);
        Ok(())
    }
}

/// One field of COPY's text format; `None` is NULL.
fn unescape(field: &[u8]) -> Result<Option<String>> {
    if field == b"\\N" {
        return Ok(None);
    }
    let mut out = Vec::with_capacity(field.len());
    let mut bytes = field.iter();
    while let Some(b) = bytes.next() {
        if *b != b'\\' {
            out.push(*b);
            continue;
        }
        // The server escapes only these; a backslash before anything else stands for that character.
        match bytes.next() {
            Some(b'b') => out.push(8),
            Some(b'f') => out.push(12),
            Some(b'n') => out.push(b'\n'),
            Some(b'r') => out.push(b'\r'),
            Some(b't') => out.push(b'\t'),
            Some(b'v') => out.push(11),
            Some(other) => out.push(*other),
            None => {}
        }
    }
    String::from_utf8(out)
        .map(Some)
        .map_err(|_| Error::new(SqlState::PROTOCOL_VIOLATION, "the copy holds text that is not UTF-8"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_snapshot_tells_which_transactions_it_holds() {
        let copied = Copied::parse("100:105:101,103", 5000).unwrap();
        let early = Lsn::from_u64(4000);
        let held: Vec<u32> = (98..108).filter(|x| copied.has(*x, early)).collect();
        assert_eq!(held, [98, 99, 100, 102, 104]);
        assert!(!copied.has(99, Lsn::from_u64(5001)));
    }

    #[test]
    fn transaction_ids_wrap_around() {
        let epoch = 1u64 << 32;
        let copied = Copied::parse(&format!("{}:{}:", epoch - 2, epoch + 3), 10).unwrap();
        let at = Lsn::from_u64(1);
        assert!(copied.has(u32::MAX, at) && copied.has(2, at));
        assert!(!copied.has(3, at));
    }

    #[test]
    fn copy_text_is_split_across_chunks() {
        let mut rows = Vec::new();
        let mut lines = Lines::default();
        for chunk in [&b"1\ta\\tb\n2"[..], b"\t\\N\n", b"3\t\\\\N\n"] {
            lines
                .feed(chunk, |f| {
                    rows.push(f.to_vec());
                    Ok(())
                })
                .unwrap();
        }
        let s = |t: &str| Some(t.to_string());
        assert_eq!(rows, [[s("1"), s("a\tb")], [s("2"), None], [s("3"), s("\\N")]]);
    }
}
