//! CHECK MATERIALIZED VIEW, WAIT FOR SINK and VERIFY SINK.

use std::sync::Arc;
use std::sync::mpsc::TryRecvError;
use std::time::Duration;

use crate::connectors::registry;
use crate::database::{Notice, Outcome, Session, connect};
use crate::engine::check::check_view;
use crate::error::{Error, Result, SqlState};
use crate::sql::Name;
use crate::sql::ast::{ObjectKind, VerifySink, WaitForSink};
use crate::sql::catalog::Object;
use crate::world;

/// How often the sink is looked at.
const POLL: Duration = Duration::from_millis(20);

impl Session {
    pub(crate) async fn check_view(&mut self, name: &Name) -> Result<Outcome> {
        let catalog = self.catalog();
        let entry = Arc::clone(catalog.require(ObjectKind::MaterializedView, name)?);
        if let Some(error) = self.database.failed.lock().get(&entry.id) {
            return Err(error.clone());
        }
        let id = entry.id.collection();
        match self.database.blocking(move |db| check_view(&db.engine, id)).await? {
            None => Ok(Outcome::done("CHECK MATERIALIZED VIEW")),
            Some(difference) => Err(Error::new(
                SqlState::DATA_CORRUPTED,
                format!("materialized view \"{}\" differs from its query", entry.name),
            )
            .with_detail(difference.to_string())),
        }
    }

    pub(crate) async fn wait_for_sink(&mut self, wait: &WaitForSink) -> Result<Outcome> {
        let catalog = self.catalog();
        let entry = Arc::clone(catalog.require(ObjectKind::Sink, &wait.name)?);
        let Object::Sink(sink) = &entry.object else { return Err(Error::internal("a sink is not a sink")) };
        let followed = sink.from.collection();
        let target = wait.tick.unwrap_or_else(|| self.database.engine.tick());
        let deadline = wait.timeout_micros.map(|t| world::instant() + Duration::from_micros(t));
        loop {
            let stats = self.database.blocking(|db| Ok(db.engine.stats())).await?;
            let changed = stats.collections.iter().find(|c| c.id == followed).map_or(0, |c| c.last_tick);
            let status = self.database.workers.status(entry.id).unwrap_or_default();
            // What has not changed since the sink's last commit needs no other one.
            if stats.tick >= target && status.tick_committed.is_some_and(|c| c >= changed.min(target)) {
                return Ok(Outcome::done("WAIT"));
            }
            if self.database.catalog().get(entry.id).is_none() {
                return Err(Error::new(
                    SqlState::UNDEFINED_OBJECT,
                    format!("sink \"{}\" was dropped", entry.name),
                ));
            }
            if deadline.is_some_and(|d| world::instant() >= d) {
                let error = Error::new(
                    SqlState::QUERY_CANCELED,
                    format!("sink \"{}\" has not committed tick {target} in time", entry.name),
                );
                let committed =
                    status.tick_committed.map_or("nothing".to_string(), |tick| format!("tick {tick}"));
                let mut detail = format!("It is {} and has committed {committed}.", status.state);
                if let Some(e) = &status.error {
                    detail.push_str(&format!(" Its last error: {e}"));
                }
                return Err(error.with_detail(detail));
            }
            world::pause(POLL).await;
        }
    }

    pub(crate) async fn verify_sink(&mut self, verify: &VerifySink) -> Result<Outcome> {
        let catalog = self.catalog();
        let entry = Arc::clone(catalog.require(ObjectKind::Sink, &verify.name)?);
        let Object::Sink(sink) = &entry.object else { return Err(Error::internal("a sink is not a sink")) };
        let definition = connect::sink_definition(&catalog, &catalog.full_name(&entry), sink)?;
        let (from, schema) = connect::followed_schema(&catalog, sink)?;
        let key = connect::sink_key(sink, &schema)?;
        if !registry::sink(&definition, &schema, &key)?.verifies() {
            return Err(Error::unsupported(format!("VERIFY of a {} sink", sink.kind.to_uppercase())));
        }
        let not_at_work = |why: String| {
            Error::new(
                SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE,
                format!("sink \"{}\" is not at work: {why}", entry.name),
            )
        };
        let status = || self.database.workers.status(entry.id).unwrap_or_default();
        let checks = self.database.workers.checks(entry.id);
        let answer = match &checks {
            Some(checks) => checks.ask(verify.repair),
            None => return Err(not_at_work(status().state.to_string())),
        };
        drop(checks);
        let verified = loop {
            match answer.try_recv() {
                Ok(verified) => break verified?,
                Err(TryRecvError::Empty) if self.database.workers.checks(entry.id).is_some() => {
                    world::pause(POLL).await;
                }
                Err(_) => {
                    let status = status();
                    return Err(not_at_work(status.error.unwrap_or_else(|| status.state.to_string())));
                }
            }
        };
        let found = &verified.differences;
        if found.is_empty() {
            return Ok(Outcome::done("VERIFY SINK"));
        }
        let what = format!(
            "the target of sink \"{}\" differs from \"{}\" at tick {}: {} rows missing, {} too many, {} changed",
            entry.name, from.name, verified.tick, found.lacks, found.extra, found.changed
        );
        let detail = found.shown.join("\n");
        if verify.repair {
            let mut notice = Notice::new(format!("{what}; the target is mended"));
            notice.detail = Some(detail);
            return Ok(Outcome::Done { tag: "VERIFY SINK".into(), notices: vec![notice] });
        }
        let error = Error::new(SqlState::DATA_CORRUPTED, what).with_detail(detail);
        Err(error.with_hint(format!("VERIFY SINK {} REPAIR makes them equal.", catalog.qualified(&entry))))
    }
}
