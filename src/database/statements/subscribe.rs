//! SUBSCRIBE: a relation's changes as rows that keep coming.
//!
//! Columns: `tick`, `progressed`, `diff`, then the relation's own. A row with `progressed` says that everything up to
//! its tick has been told; its other columns are NULL. A query that is no relation is kept up to date for as long as
//! somebody follows it.

use std::collections::VecDeque;
use std::sync::Arc;

use arrow::array::{ArrayRef, BooleanArray, Int64Array, RecordBatch, new_null_array};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use datafusion::execution::SendableRecordBatchStream;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use futures::stream;

use crate::database::system::Following;
use crate::database::{CopyFormat, Database, Outcome, Session};
use crate::engine::plan::collections;
use crate::engine::{CollectionId, Delta, SubscribeFrom, Subscription, Tick, ViewSpec};
use crate::error::{Error, Result};
use crate::sql::ast::{Subscribe, SubscribeTo};
use crate::sql::catalog::ObjectId;
use crate::sql::parser::parse_query;

/// The columns of a subscription to a relation with these columns.
pub(crate) fn subscription_schema(of: &SchemaRef) -> SchemaRef {
    let mut fields = vec![
        Arc::new(Field::new("tick", DataType::Int64, false)),
        Arc::new(Field::new("progressed", DataType::Boolean, false)),
        Arc::new(Field::new("diff", DataType::Int64, true)),
    ];
    fields.extend(of.fields().iter().map(|f| Arc::new(f.as_ref().clone().with_nullable(true))));
    Arc::new(Schema::new(fields))
}

/// A view that exists only for its subscriber.
struct OwnView {
    database: Arc<Database>,
    id: ObjectId,
}

impl Drop for OwnView {
    fn drop(&mut self) {
        let (database, id) = (Arc::clone(&self.database), self.id);
        if !database.subscriptions.disown(id.collection()) {
            // It went with what it read.
            return;
        }
        // Dropping waits for the tick in hand, which an async thread must not.
        if std::thread::Builder::new()
            .name("unsubscribe".into())
            .spawn(move || database.discard(&[id]))
            .is_err()
        {
            tracing::warn!(collection = self.id.0, "a subscription's view stays until the server stops");
        }
    }
}

/// A subscription being read.
struct Reader {
    // Dropped in this order: the subscription goes before the view it reads.
    subscription: Subscription,
    _view: Option<OwnView>,
    schema: SchemaRef,
    progress: bool,
    ready: VecDeque<RecordBatch>,
    following: Following,
}

impl Reader {
    fn rows(&mut self, tick: Tick, delta: Delta) -> Result<()> {
        let rows = delta.rows.num_rows();
        if rows == 0 {
            return Ok(());
        }
        let diff: ArrayRef = match delta.weights {
            Some(weights) => Arc::new(Int64Array::new(weights, None)),
            None => Arc::new(Int64Array::from(vec![1; rows])),
        };
        let mut columns: Vec<ArrayRef> = vec![
            Arc::new(Int64Array::from(vec![tick as i64; rows])),
            Arc::new(BooleanArray::from(vec![false; rows])),
            diff,
        ];
        columns.extend(delta.rows.columns().iter().cloned());
        self.ready.push_back(RecordBatch::try_new(Arc::clone(&self.schema), columns)?);
        self.following.sent(tick, rows);
        Ok(())
    }

    fn passed(&mut self, tick: Tick) -> Result<()> {
        if self.progress {
            let mut columns: Vec<ArrayRef> =
                vec![Arc::new(Int64Array::from(vec![tick as i64])), Arc::new(BooleanArray::from(vec![true]))];
            columns.extend(self.schema.fields()[2..].iter().map(|f| new_null_array(f.data_type(), 1)));
            self.ready.push_back(RecordBatch::try_new(Arc::clone(&self.schema), columns)?);
        }
        Ok(())
    }

    async fn next(&mut self) -> Result<RecordBatch> {
        loop {
            if let Some(batch) = self.ready.pop_front() {
                return Ok(batch);
            }
            let change = self.subscription.recv().await?;
            if let Some(delta) = change.delta {
                self.rows(change.tick, delta)?;
            }
            self.passed(change.tick)?;
        }
    }
}

impl Session {
    /// The rows of a subscription.
    pub(crate) async fn subscription(
        &mut self,
        subscribe: &Subscribe,
        text: &str,
    ) -> Result<SendableRecordBatchStream> {
        let (target, of) = self.followed(&subscribe.what, text)?;
        let from = match subscribe.as_of {
            Some(_) if subscribe.snapshot => {
                return Err(Error::unsupported("SUBSCRIBE … AS OF with a snapshot")
                    .with_hint("WITH (snapshot = false) follows the changes after the tick."));
            }
            Some(tick) => SubscribeFrom::After(tick),
            None if subscribe.snapshot => SubscribeFrom::Snapshot,
            None => SubscribeFrom::Now,
        };
        let schema = subscription_schema(&of);
        let (name, progress) = (target.name().to_string(), subscribe.progress);
        let database = Arc::clone(&self.database);
        let user = self.options.user.clone();
        let mut reader = self
            .database
            .blocking(move |db| {
                let (id, view) = target.make(&database)?;
                let subscription = db.engine.subscribe(id, from)?;
                let following = db.subscriptions.follow(&name, &user, subscription.start_tick());
                let ready = VecDeque::new();
                Ok(Reader { subscription, _view: view, schema, progress, ready, following })
            })
            .await?;
        let start = reader.subscription.start_tick();
        if let Some(snapshot) = reader.subscription.snapshot().cloned() {
            if let Some(error) = snapshot.errors().first() {
                return Err(error.error.clone());
            }
            for rows in snapshot.batches()? {
                reader.rows(start, Delta { rows, weights: None })?;
            }
        }
        reader.passed(start)?;
        let schema = Arc::clone(&reader.schema);
        let rows = stream::unfold(Some(reader), |reader| async move {
            let mut reader = reader?;
            match reader.next().await {
                Ok(batch) => Some((Ok(batch), Some(reader))),
                Err(error) => Some((Err(error.into()), None)),
            }
        });
        Ok(Box::pin(RecordBatchStreamAdapter::new(schema, rows)))
    }

    /// Columns of what a subscription follows, without following it.
    pub(crate) fn followed_columns(&self, what: &SubscribeTo, text: &str) -> Result<SchemaRef> {
        Ok(self.followed(what, text)?.1)
    }

    fn followed(&self, what: &SubscribeTo, text: &str) -> Result<(Target, SchemaRef)> {
        match what {
            SubscribeTo::Relation(name) => {
                let catalog = self.catalog();
                let entry = catalog.require_relation(name)?;
                let schema = entry.schema().ok_or_else(|| Error::internal("a relation without columns"))?;
                if entry.is_collection() {
                    return Ok((Target::Collection(entry.id.collection(), catalog.full_name(entry)), schema));
                }
                let query = parse_query(&format!("SELECT * FROM {}", catalog.qualified(entry)))?;
                let plan = self.with_planner(|p| p.plan_materialized_view(&query, &[], ""))?;
                let schema = Arc::clone(&plan.schema);
                Ok((Target::Query(Box::new((plan.plan, plan.schema)), catalog.full_name(entry)), schema))
            }
            SubscribeTo::Query { query, text: own } => {
                let plan = self.with_planner(|p| p.plan_materialized_view(query, &[], text))?;
                let schema = Arc::clone(&plan.schema);
                Ok((Target::Query(Box::new((plan.plan, plan.schema)), own.clone()), schema))
            }
        }
    }

    pub(crate) async fn subscribe(&mut self, subscribe: &Subscribe, text: &str) -> Result<Outcome> {
        let stream = self.subscription(subscribe, text).await?;
        Ok(Outcome::Rows {
            schema: stream.schema(),
            stream,
            tag: |n| format!("SUBSCRIBE {n}"),
            notices: Vec::new(),
        })
    }

    pub(crate) async fn copy_subscribe(
        &mut self,
        subscribe: &Subscribe,
        text: &str,
        format: CopyFormat,
    ) -> Result<Outcome> {
        let stream = self.subscription(subscribe, text).await?;
        Ok(Outcome::CopyOut { schema: stream.schema(), format, stream })
    }
}

/// What a subscription follows.
enum Target {
    Collection(CollectionId, String),
    Query(Box<(datafusion::logical_expr::LogicalPlan, SchemaRef)>, String),
}

impl Target {
    /// For `tidemill.subscriptions`.
    fn name(&self) -> &str {
        match self {
            Target::Collection(_, name) | Target::Query(_, name) => name,
        }
    }

    /// The collection to follow, made if there is none yet. Blocks.
    fn make(self, database: &Arc<Database>) -> Result<(CollectionId, Option<OwnView>)> {
        match self {
            Target::Collection(id, _) => Ok((id, None)),
            Target::Query(query, _) => {
                let (plan, schema) = *query;
                let id = database.new_id()?;
                let name = format!("subscription {}", id.0);
                let reads = collections(&plan);
                database.engine.create_view(ViewSpec { id: id.collection(), name, schema, plan })?;
                database.subscriptions.own(id.collection(), reads);
                Ok((id.collection(), Some(OwnView { database: Arc::clone(database), id })))
            }
        }
    }
}
