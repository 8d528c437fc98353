//! The extended protocol: statements prepared, bound, described and executed one message at a time.

use std::sync::Arc;

use datafusion::scalar::ScalarValue;

use crate::database::{Outcome, Prepared, TransactionStatus};
use crate::error::{Error, Result, SqlState};
use crate::pgwire::connection::Connection;
use crate::pgwire::encode::RowEncoder;
use crate::pgwire::frame::{Bind, Target};
use crate::pgwire::params;
use crate::pgwire::rows::{Halt, Rows, Sent};
use crate::types::SqlType;

/// The most portals of one transaction, so that a client cannot hold any amount of parameters here.
const PORTALS_MAX: usize = 10_000;

/// A prepared statement with its parameters.
pub(super) struct Portal {
    prepared: Arc<Prepared>,
    result_formats: Vec<i16>,
    state: State,
}

enum State {
    /// Not executed yet.
    Bound(Vec<ScalarValue>),
    /// Some rows were sent, there may be more.
    Suspended(Box<Rows>),
    /// Everything was sent; what a further Execute of a query is told.
    Finished(Option<fn(u64) -> String>),
}

impl Connection {
    pub(super) async fn parse(&mut self, name: &str, sql: &str, param_oids: &[u32]) -> Result<(), Halt> {
        let params = param_oids
            .iter()
            .enumerate()
            .map(|(i, oid)| match SqlType::from_oid(*oid) {
                _ if *oid == 0 => Ok(None),
                None => Err(Error::new(
                    SqlState::UNDEFINED_OBJECT,
                    format!("type with OID {oid} of parameter ${} does not exist", i + 1),
                )),
                Some(SqlType::Unknown) => Ok(None),
                Some(sql_type) => Ok(Some(sql_type.field_ref(format!("${}", i + 1), true))),
            })
            .collect::<Result<Vec<_>>>()?;
        if !name.is_empty() && self.session.prepared(name).is_some() {
            return Err(Error::new(
                SqlState("42P05"),
                format!("prepared statement \"{name}\" already exists"),
            )
            .into());
        }
        self.io.watch(self.session.prepare(name, sql, &params)).await??;
        Ok(self.io.out.parse_complete()?)
    }

    pub(super) fn bind(&mut self, bind: Bind) -> Result<(), Halt> {
        let prepared = self.statement(&bind.statement)?;
        if !bind.portal.is_empty() && self.portals.contains_key(&bind.portal) {
            return Err(
                Error::new(SqlState("42P03"), format!("cursor \"{}\" already exists", bind.portal)).into()
            );
        }
        if self.portals.len() >= PORTALS_MAX {
            return Err(Error::new(
                SqlState("54000"),
                format!("a transaction can have at most {PORTALS_MAX} portals"),
            )
            .into());
        }
        let params = params::decode(&prepared.params, &bind.param_formats, &bind.params)?;
        if let Some(columns) = &prepared.columns {
            // Refuses a wrong number of formats before anything runs.
            RowEncoder::new(columns, &bind.result_formats, self.text_format())?;
        }
        let portal = Portal { prepared, result_formats: bind.result_formats, state: State::Bound(params) };
        self.portals.insert(bind.portal, portal);
        Ok(self.io.out.bind_complete()?)
    }

    pub(super) fn describe(&mut self, target: Target) -> Result<(), Halt> {
        let (prepared, formats) = match &target {
            Target::Statement(name) => {
                let prepared = self.statement(name)?;
                let oids = prepared.params.iter().map(|field| SqlType::of(field).oid()).collect();
                self.io.out.parameters(oids)?;
                // The statement's formats are not chosen yet: all are said to be text.
                (prepared, &[][..])
            }
            Target::Portal(name) => {
                let portal = self.portals.get(name).ok_or_else(|| no_portal(name))?;
                (Arc::clone(&portal.prepared), portal.result_formats.as_slice())
            }
        };
        match &prepared.columns {
            Some(columns) => {
                let encoder = RowEncoder::new(columns, formats, self.text_format())?;
                Ok(self.io.out.row_description(encoder.description())?)
            }
            None => Ok(self.io.out.no_data()?),
        }
    }

    pub(super) async fn execute(&mut self, name: &str, rows_max: u32) -> Result<(), Halt> {
        let portal = self.portals.get_mut(name).ok_or_else(|| no_portal(name))?;
        // Whatever fails from here on leaves a portal that cannot go on.
        match std::mem::replace(&mut portal.state, State::Finished(None)) {
            State::Bound(params) => {
                let prepared = Arc::clone(&portal.prepared);
                let work = self.session.execute_pipelined(&prepared, params);
                match self.io.watch(work).await?? {
                    Outcome::Rows { schema, stream, tag, notices } => {
                        self.notices(notices)?;
                        let formats = self.portals.get(name).map_or(&[][..], |p| &p.result_formats);
                        let encoder = RowEncoder::new(&schema, formats, self.text_format())?;
                        self.send(name, Box::new(Rows::new(encoder, stream, tag)), rows_max).await
                    }
                    other => self.without_rows(other).await,
                }
            }
            State::Suspended(rows) => self.send(name, rows, rows_max).await,
            State::Finished(Some(tag)) => {
                portal.state = State::Finished(Some(tag));
                Ok(self.io.out.command_complete(tag(0))?)
            }
            State::Finished(None) => Err(Error::new(
                SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE,
                format!("portal \"{name}\" cannot be run"),
            )
            .into()),
        }
    }

    async fn send(&mut self, name: &str, mut rows: Box<Rows>, rows_max: u32) -> Result<(), Halt> {
        let tag = rows.tag();
        let state = match rows.send(&mut self.io, rows_max).await? {
            Sent::All(tag_text) => {
                self.complete(tag_text)?;
                State::Finished(Some(tag))
            }
            Sent::Suspended => {
                self.io.out.portal_suspended()?;
                State::Suspended(rows)
            }
        };
        if let Some(portal) = self.portals.get_mut(name) {
            portal.state = state;
        }
        Ok(())
    }

    pub(super) fn close(&mut self, target: Target) -> Result<(), Halt> {
        match target {
            Target::Statement(name) => self.session.close_prepared(&name),
            Target::Portal(name) => {
                self.portals.remove(&name);
            }
        }
        Ok(self.io.out.close_complete()?)
    }

    pub(super) async fn sync(&mut self) -> Result<(), Halt> {
        if self.session.transaction_status() == TransactionStatus::Idle {
            // Unread rows end with the transaction, before it is committed.
            self.portals.clear();
        }
        Ok(self.io.watch(self.session.sync()).await??)
    }

    fn statement(&self, name: &str) -> Result<Arc<Prepared>> {
        self.session.prepared(name).ok_or_else(|| {
            let which = match name {
                "" => "unnamed prepared statement does not exist".to_string(),
                name => format!("prepared statement \"{name}\" does not exist"),
            };
            Error::new(SqlState::INVALID_SQL_STATEMENT_NAME, which)
        })
    }
}

fn no_portal(name: &str) -> Error {
    Error::new(SqlState::INVALID_CURSOR_NAME, format!("portal \"{name}\" does not exist"))
}
