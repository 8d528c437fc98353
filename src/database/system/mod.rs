//! Schema `tidemill`: the database shows itself as relations.
//!
//! Every relation is computed when it is scanned, from the catalog, the engine's counters and the connectors' status;
//! `errors` and `files` alone hold rows of their own, in collections of the engine, so that they last as the sources'
//! rows do.

mod cells;
mod checkpoints;
mod commits;
mod errors;
mod files;
mod objects;
mod operators;
mod status;
mod subscriptions;

use std::sync::{Arc, OnceLock, Weak};

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use async_trait::async_trait;
use datafusion::catalog::{Session, TableProvider};
use datafusion::datasource::memory::MemorySourceConfig;
use datafusion::logical_expr::{Expr, ScalarUDF, TableType};
use datafusion::physical_plan::ExecutionPlan;
use parking_lot::Mutex;

pub(crate) use cells::{Cell, Column, Kind, batch, schema};
pub(crate) use errors::{ERRORS, errors_input, errors_schema, stored_errors};
pub(crate) use files::{FILES, files_input, finished_files, finished_rows, forgotten_rows};
pub(crate) use subscriptions::{Following, Subscriptions};

use crate::database::files::Previews;
use crate::database::{Database, pg_catalog};
use crate::error::{Error, Result};
use crate::sql::plan::{SessionInfo, SystemCatalog};

/// A system relation: its name, its columns, and how its rows are had.
pub(crate) struct Definition {
    pub name: &'static str,
    pub columns: &'static [Column],
    pub rows: fn(&Database) -> Result<Vec<Vec<Cell>>>,
}

/// Every relation of schema `tidemill`.
fn definitions() -> impl Iterator<Item = &'static Definition> {
    objects::RELATIONS
        .iter()
        .chain(status::RELATIONS)
        .chain(commits::RELATIONS)
        .chain(checkpoints::RELATIONS)
        .chain(operators::RELATIONS)
        .chain(errors::RELATIONS)
        .chain(files::RELATIONS)
        .chain(subscriptions::RELATIONS)
}

/// Everything that queries can name besides what users have created, as one session sees it.
pub(crate) struct SystemRelations {
    database: Weak<Database>,
    session: SessionInfo,
    settings: Vec<(String, String, String)>,
    /// Files that the query at hand names.
    previews: Previews,
    /// What PostgreSQL's own relations tell; made when a query names one.
    context: OnceLock<Arc<pg_catalog::Context>>,
}

impl Database {
    /// The system relations for a session.
    pub(crate) fn system(
        &self,
        session: &SessionInfo,
        settings: Vec<(String, String, String)>,
    ) -> SystemRelations {
        SystemRelations {
            database: Weak::clone(&self.me),
            session: session.clone(),
            settings,
            previews: Previews::default(),
            context: OnceLock::new(),
        }
    }
}

impl SystemRelations {
    /// The same, with files that the query at hand names.
    pub(crate) fn with_previews(mut self, previews: Previews) -> SystemRelations {
        self.previews = previews;
        self
    }

    fn context(&self) -> &Arc<pg_catalog::Context> {
        self.context.get_or_init(|| {
            let database = self.database.upgrade();
            let catalog = database.as_ref().map(|d| self.session.sees(&d.catalog()));
            Arc::new(pg_catalog::Context {
                catalog: catalog.unwrap_or_default(),
                user: self.session.user.clone(),
                database: self.session.database.clone(),
                settings: self.settings.clone(),
                system: definitions().map(|d| (d.name.to_string(), cells::schema(d.columns))).collect(),
                tick: database.map_or(0, |d| d.engine.tick()),
                assigned: Mutex::default(),
            })
        })
    }
}

impl SystemCatalog for SystemRelations {
    fn table(&self, schema: &str, name: &str) -> Option<Arc<dyn TableProvider>> {
        if schema == "tidemill" {
            if let Some(files) = self.previews.get(name) {
                return Some(files);
            }
            let definition = definitions().find(|d| d.name == name)?;
            let schema = cells::schema(definition.columns);
            return Some(Arc::new(Relation { definition, schema, database: Weak::clone(&self.database) }));
        }
        pg_catalog::relation(schema, name)?;
        pg_catalog::table(self.context(), schema, name)
    }

    fn function(&self, name: &str) -> Option<Arc<ScalarUDF>> {
        pg_catalog::function(self.context(), name)
    }
}

/// A system relation as DataFusion scans it.
struct Relation {
    definition: &'static Definition,
    schema: SchemaRef,
    database: Weak<Database>,
}

impl std::fmt::Debug for Relation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Relation").field("name", &self.definition.name).finish()
    }
}

impl Relation {
    fn batch(&self) -> Result<RecordBatch> {
        let gone = || Error::new(crate::SqlState::ADMIN_SHUTDOWN, "the database is closed");
        let rows = (self.definition.rows)(&*self.database.upgrade().ok_or_else(gone)?)?;
        cells::batch(self.definition.columns, &self.schema, rows)
    }
}

#[async_trait]
impl TableProvider for Relation {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }

    fn table_type(&self) -> TableType {
        TableType::View
    }

    async fn scan(
        &self,
        _state: &dyn Session,
        projection: Option<&Vec<usize>>,
        _filters: &[Expr],
        _limit: Option<usize>,
    ) -> datafusion::error::Result<Arc<dyn ExecutionPlan>> {
        // The engine answers between two ticks: a wait, if a short one.
        let relation = Relation {
            definition: self.definition,
            schema: self.schema(),
            database: Weak::clone(&self.database),
        };
        let batch = tokio::task::spawn_blocking(move || relation.batch())
            .await
            .map_err(|e| Error::internal(format!("a system relation could not be read: {e}")))??;
        Ok(MemorySourceConfig::try_new_exec(&[vec![batch]], self.schema(), projection.cloned())?)
    }
}
