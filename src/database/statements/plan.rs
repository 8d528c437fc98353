//! Plans of queries and DML, kept with prepared statements for as long as they mean the same.

use std::sync::{Arc, OnceLock};

use arrow::datatypes::FieldRef;
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::logical_expr::LogicalPlan;

use crate::database::statements::query::refuse_assignments;
use crate::database::{Session, pg_catalog};
use crate::engine::plan::CollectionSource;
use crate::engine::serve::point::PointRead;
use crate::error::Result;
use crate::sql::Catalog;
use crate::sql::ast::{Parsed, Statement};
use crate::sql::plan::{ChangePlan, InsertPlan, Planned};

/// A planned statement.
#[derive(Clone, Debug)]
pub(crate) enum Plan {
    Query(Planned),
    Insert(InsertPlan),
    /// UPDATE or DELETE.
    Change(ChangePlan),
}

impl Plan {
    fn logical(&self) -> &LogicalPlan {
        match self {
            Plan::Query(planned) => &planned.plan,
            Plan::Insert(insert) => &insert.plan,
            Plan::Change(change) => &change.plan,
        }
    }
}

/// A plan, and what it depends on besides the statement.
#[derive(Debug)]
pub(crate) struct KeptPlan {
    plan: Plan,
    catalog: Arc<Catalog>,
    /// Along which path its names were looked for.
    search_path: Vec<String>,
    /// The plan as a look-up, if it is one; found out when it is first run.
    point: OnceLock<Option<PointRead>>,
}

impl KeptPlan {
    /// The plan as a look-up, if it is one.
    pub(crate) fn point(&self) -> Option<&PointRead> {
        let point = || match &self.plan {
            Plan::Query(planned) => PointRead::of(&planned.plan),
            Plan::Insert(_) | Plan::Change(_) => None,
        };
        self.point.get_or_init(point).as_ref()
    }
}

impl Session {
    /// Plans a query or DML; `None` for any other statement.
    pub(crate) fn plan_statement(&self, parsed: &Parsed, types: &[Option<FieldRef>]) -> Result<Option<Plan>> {
        let text = parsed.text.as_str();
        let plan = match &parsed.statement {
            Statement::Query(query) => Plan::Query(self.plan_query(query, text, types)?),
            Statement::Insert(insert) => {
                Plan::Insert(self.with_planner(|p| p.plan_insert(insert, text, types))?)
            }
            Statement::Update(update) => {
                Plan::Change(self.with_planner(|p| p.plan_update(update, text, types))?)
            }
            Statement::Delete(delete) => {
                Plan::Change(self.with_planner(|p| p.plan_delete(delete, text, types))?)
            }
            _ => return Ok(None),
        };
        if !matches!(plan, Plan::Query(_)) {
            refuse_assignments(plan.logical(), "a statement that writes")?;
        }
        Ok(Some(plan))
    }

    /// A plan as it can be kept; `None` when it holds more than the catalog says: system relations and
    /// their functions are of the moment.
    pub(crate) fn keep_plan(&self, plan: Plan) -> Option<KeptPlan> {
        let mut only_collections = true;
        let visited = plan.logical().apply_with_subqueries(|node| {
            if let LogicalPlan::TableScan(scan) = node
                && scan.source.downcast_ref::<CollectionSource>().is_none()
            {
                only_collections = false;
                return Ok(TreeNodeRecursion::Stop);
            }
            Ok(TreeNodeRecursion::Continue)
        });
        let keeps = visited.is_ok() && only_collections && pg_catalog::context_of(plan.logical()).is_none();
        keeps.then(|| KeptPlan {
            plan,
            catalog: self.database.catalog(),
            search_path: self.settings.search_path(),
            point: OnceLock::new(),
        })
    }

    /// The kept plan, if it still means what the statement means.
    pub(crate) fn reuse_plan(&self, kept: &KeptPlan) -> Option<Plan> {
        let means_the_same = Arc::ptr_eq(&kept.catalog, &self.database.catalog())
            && kept.search_path == self.settings.search_path();
        means_the_same.then(|| kept.plan.clone())
    }
}
