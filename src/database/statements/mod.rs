//! Running one statement, one file a family. What each of them answers stands in `describe`.

pub(crate) mod change;
pub(crate) mod copy_from;
pub(crate) mod create;
pub(crate) mod cursor;
pub(crate) mod describe;
pub(crate) mod explain;
mod explain_sink;
pub(crate) mod insert;
pub(crate) mod plan;
pub(crate) mod prepared;
pub(crate) mod query;
pub(crate) mod replay;
pub(crate) mod show;
pub(crate) mod subscribe;
pub(crate) mod transaction;
pub(crate) mod wait;

use arrow::datatypes::FieldRef;
use datafusion::scalar::ScalarValue;

use crate::database::statements::plan::{KeptPlan, Plan};
use crate::database::transaction::Transaction;
use crate::database::{Notice, Outcome, Session, settings};
use crate::error::{Error, Result};
use crate::sql::ast::{Copy, CopyWhat, Discard, Parsed, Set, Statement};

/// Parameters with their types.
pub(crate) type Params = Vec<(FieldRef, ScalarValue)>;

/// Whether a statement creates, changes or drops objects.
fn changes_objects(statement: &Statement) -> bool {
    matches!(
        statement,
        Statement::CreateSecret(_)
            | Statement::CreateConnection(_)
            | Statement::CreateSource(_)
            | Statement::CreateTable(_)
            | Statement::CreateView(_)
            | Statement::CreateMaterializedView(_)
            | Statement::CreateIndex(_)
            | Statement::CreateSink(_)
            | Statement::CreateSchema(_)
            | Statement::Drop(_)
            | Statement::Alter(_)
            | Statement::Comment(_)
    )
}

impl Session {
    /// Runs a statement in the session's transaction, which it begins if there is none.
    pub(crate) async fn run(
        &mut self,
        parsed: &Parsed,
        params: Params,
        kept: Option<&KeptPlan>,
    ) -> Result<Outcome> {
        if changes_objects(&parsed.statement) {
            // It takes effect at once, so what a string of statements did before it does as well.
            self.end_implicit(true).await?;
        }
        if self.transaction.is_none() {
            let read_only = self.settings.get("default_transaction_read_only") == Some("on");
            self.transaction = Some(Transaction::implicit(read_only));
        }
        let text = parsed.text.as_str();
        let reused = kept.and_then(|kept| Some((kept, self.reuse_plan(kept)?)));
        if let Some((kept, Plan::Query(planned))) = &reused
            && let Some(point) = kept.point()
            && let Some(found) = self.look_up(point, planned, &params)?
        {
            return Ok(found);
        }
        let plan = match reused {
            Some((_, plan)) => Some(plan),
            None => {
                let types: Vec<_> = params.iter().map(|(field, _)| Some(FieldRef::clone(field))).collect();
                self.plan_statement(parsed, &types)?
            }
        };
        if let Some(plan) = plan {
            let values: Vec<ScalarValue> = params.into_iter().map(|(_, value)| value).collect();
            return match (plan, &parsed.statement) {
                (Plan::Query(planned), _) => self.query(&planned, values).await,
                (Plan::Insert(plan), _) => self.insert(&plan, values).await,
                (Plan::Change(plan), Statement::Delete(_)) => self.delete(&plan, values).await,
                (Plan::Change(plan), _) => self.update(&plan, values).await,
            };
        }
        match &parsed.statement {
            Statement::Query(_) | Statement::Insert(_) | Statement::Update(_) | Statement::Delete(_) => {
                Err(Error::internal("a statement without a plan"))
            }
            Statement::Truncate(truncate) => self.truncate(truncate).await,
            Statement::Copy(Copy::From { table, columns, format }) => {
                self.copy_from(table, columns, format).await
            }
            Statement::Copy(Copy::To { what: CopyWhat::Query(query), format }) => {
                self.copy_query(query, text, format.clone()).await
            }
            Statement::Copy(Copy::To { what: CopyWhat::Subscribe(subscribe), format }) => {
                self.copy_subscribe(subscribe, text, format.clone()).await
            }
            Statement::CreateSecret(_)
            | Statement::CreateConnection(_)
            | Statement::CreateSource(_)
            | Statement::CreateTable(_)
            | Statement::CreateView(_)
            | Statement::CreateMaterializedView(_)
            | Statement::CreateIndex(_)
            | Statement::CreateSink(_)
            | Statement::CreateSchema(_) => self.create(parsed).await,
            Statement::Drop(drop) => self.drop_objects(drop).await,
            Statement::Alter(alter) => self.alter(alter).await,
            Statement::Comment(comment) => self.comment(comment).await,
            Statement::Show(show) => self.show(show).await,
            Statement::ShowVariable(name) => self.show_setting(name),
            Statement::Set(set) => self.set(set),
            Statement::Explain(explain) => self.explain(explain, text).await,
            Statement::Subscribe(subscribe) => self.subscribe(subscribe, text).await,
            Statement::Declare(declare) => self.declare(declare, text).await,
            Statement::Fetch(fetch) => self.fetch(fetch).await,
            Statement::Close(name) => self.close_cursor(name.as_deref()),
            Statement::Begin(begin) => self.begin(*begin).await,
            Statement::Commit => self.commit().await,
            Statement::Rollback => self.rollback().await,
            Statement::Savepoint(name) => self.savepoint(name),
            Statement::Release(name) => self.release(name),
            Statement::RollbackTo(name) => self.rollback_to(name).await,
            // Every write is visible when it is answered.
            Statement::Flush => Ok(Outcome::done("FLUSH")),
            Statement::Discard(discard) => self.discard(*discard),
            Statement::Prepare(prepare) => self.prepare_statement(prepare),
            Statement::Execute(execute) => self.execute_statement(execute).await,
            Statement::Deallocate(name) => self.deallocate(name.as_deref()),
            Statement::CheckView(name) => self.check_view(name).await,
            Statement::WaitForSink(wait) => self.wait_for_sink(wait).await,
            Statement::VerifySink(verify) => self.verify_sink(verify).await,
            Statement::ReplayErrors(replay) => self.replay_errors(replay, text).await,
            Statement::ValidateConnection(name) => {
                let (by, name) = (self.info(), name.clone());
                self.database.blocking(move |db| db.validate_connection(&by, &name)).await?;
                Ok(Outcome::done("VALIDATE CONNECTION"))
            }
            Statement::Unsupported(error) => Err(error.clone()),
        }
    }

    fn set(&mut self, set: &Set) -> Result<Outcome> {
        match set {
            Set::Variable { name, value, local } => {
                let in_block = self.transaction.as_ref().is_some_and(|t| t.block);
                let mut notices = Vec::new();
                if *local && !in_block {
                    notices
                        .push(Notice::warning("25P01", "SET LOCAL can only be used in transaction blocks"));
                }
                self.settings.set(name, value.as_deref(), *local)?;
                if settings::is_foreign(name) {
                    notices.push(Notice::new(format!("setting \"{name}\" changes nothing here")));
                }
                if *local && !in_block {
                    // What lasts to the end of the transaction is over with the statement.
                    self.settings.end(true);
                }
                Ok(Outcome::Done { tag: "SET".into(), notices })
            }
            Set::Reset(Some(name)) => {
                self.settings.set(name, None, false)?;
                Ok(Outcome::done("RESET"))
            }
            Set::Reset(None) => {
                self.settings.reset_all();
                Ok(Outcome::done("RESET"))
            }
            Set::Transaction => Ok(Outcome::done("SET")),
        }
    }

    fn discard(&mut self, discard: Discard) -> Result<Outcome> {
        let tag = match discard {
            Discard::All => {
                self.refuse_in_block("DISCARD ALL")?;
                self.settings.reset_all();
                self.prepared.clear();
                self.cursors.clear();
                "DISCARD ALL"
            }
            Discard::Plans => "DISCARD PLANS",
            Discard::Sequences => "DISCARD SEQUENCES",
            Discard::Temp => "DISCARD TEMP",
        };
        Ok(Outcome::done(tag))
    }
}
