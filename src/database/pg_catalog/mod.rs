//! `pg_catalog` and `information_schema`: what is in the database, told in PostgreSQL's own relations, so that psql's
//! `\d`, drivers and tools find their way.
//!
//! [`RELATIONS`] has the columns of every relation there is; rows of those that are not always empty are made from
//! the catalog when a query reads them ([`table`]). [`function()`] has the functions that come with them, and
//! [`mod@rewrite`] brings a client's query into a shape that the planner knows.

mod classes;
mod expand;
mod functions;
mod information;
mod rewrite;
mod rows;
mod settings;
mod types;

use std::collections::HashMap;
use std::sync::{Arc, LazyLock};

use arrow::array::RecordBatch;
use arrow::datatypes::{Schema, SchemaRef};
use datafusion::catalog::{Session as DfSession, TableProvider};
use datafusion::datasource::{MemTable, TableType};
use datafusion::logical_expr::Expr;
use datafusion::physical_plan::ExecutionPlan;
use parking_lot::Mutex;

pub use functions::{context_of, function, sets_settings};
pub use rewrite::rewrite;

use crate::error::Result;
use crate::sql::Catalog;
use crate::types::SqlType;
use rows::Rows;

/// What the system relations tell about.
#[derive(Debug)]
pub struct Context {
    /// All objects.
    pub catalog: Catalog,
    /// The session's user.
    pub user: String,
    /// The database's name, as the client calls it.
    pub database: String,
    /// Every setting: name, value, description.
    pub settings: Vec<(String, String, String)>,
    /// The relations of schema `tidemill`.
    pub system: Vec<(String, SchemaRef)>,
    /// The newest tick.
    pub tick: u64,
    /// What `set_config` was called for: name, value, whether only until the block ends.
    pub assigned: Mutex<Vec<(String, String, bool)>>,
}

/// Object ids of PostgreSQL's own schemas and of those that are made here, below the first id of a user's object.
pub(crate) mod oids {
    pub const PG_CATALOG: u32 = 11;
    pub const PUBLIC: u32 = 2200;
    pub const INFORMATION_SCHEMA: u32 = 13_000;
    pub const TIDEMILL: u32 = 13_001;
    pub const OWNER: u32 = 10;
    pub const DATABASE: u32 = 5;
    pub const TABLESPACE: u32 = 1663;
    pub const HEAP: u32 = 2;
    pub const BTREE: u32 = 403;
    pub const PG_TYPE: u32 = 1247;
    pub const PG_CLASS: u32 = 1259;
    pub const PG_CONSTRAINT: u32 = 2606;
    pub const PG_NAMESPACE: u32 = 2615;
    /// The first of the system relations; each has the oid of its place in the list.
    pub const SYSTEM_RELATIONS: u32 = 14_000;
    /// The oid of a table's primary key (its index and its constraint) is the table's plus this.
    pub const PRIMARY_KEYS: u32 = 1 << 30;
}

/// A relation's schema, name and columns.
#[derive(Debug)]
pub struct Relation {
    /// `pg_catalog` or `information_schema`.
    pub schema: &'static str,
    /// Its name.
    pub name: &'static str,
    /// Its columns.
    pub columns: SchemaRef,
}

/// All relations, in the order of their oids.
pub static RELATIONS: LazyLock<Vec<Relation>> = LazyLock::new(|| {
    include_str!("relations.txt").lines().filter(|line| !line.starts_with('#')).filter_map(parse).collect()
});

static BY_NAME: LazyLock<HashMap<(&'static str, &'static str), usize>> =
    LazyLock::new(|| RELATIONS.iter().enumerate().map(|(i, r)| ((r.schema, r.name), i)).collect());

/// Reads `schema.name: column type, column type`. That every line can be read is tested.
fn parse(line: &'static str) -> Option<Relation> {
    let (name, columns) = line.split_once(": ")?;
    let (schema, name) = name.split_once('.')?;
    let fields = columns
        .split(", ")
        .map(|column| {
            let (name, sql_type) = column.split_once(' ')?;
            Some(sql_type.parse::<SqlType>().ok()?.field(name, true))
        })
        .collect::<Option<Vec<_>>>()?;
    Some(Relation { schema, name, columns: Arc::new(Schema::new(fields)) })
}

/// The relation of this name.
pub fn relation(schema: &str, name: &str) -> Option<&'static Relation> {
    BY_NAME.get(&(schema, name)).and_then(|i| RELATIONS.get(*i))
}

/// Makes a relation's rows.
type Maker = fn(&Context, &mut Rows) -> Result<()>;

/// How the relations that are not always empty are filled.
fn maker(relation: &Relation) -> Option<Maker> {
    Some(match (relation.schema, relation.name) {
        ("pg_catalog", "pg_class") => classes::pg_class,
        ("pg_catalog", "pg_attribute") => classes::pg_attribute,
        ("pg_catalog", "pg_attrdef") => classes::pg_attrdef,
        ("pg_catalog", "pg_index") => classes::pg_index,
        ("pg_catalog", "pg_constraint") => classes::pg_constraint,
        ("pg_catalog", "pg_description") => classes::pg_description,
        ("pg_catalog", "pg_depend") => classes::pg_depend,
        ("pg_catalog", "pg_namespace") => classes::pg_namespace,
        ("pg_catalog", "pg_tables") => classes::pg_tables,
        ("pg_catalog", "pg_views") => classes::pg_views,
        ("pg_catalog", "pg_matviews") => classes::pg_matviews,
        ("pg_catalog", "pg_indexes") => classes::pg_indexes,
        ("pg_catalog", "pg_type") => types::pg_type,
        ("pg_catalog", "pg_am") => settings::pg_am,
        ("pg_catalog", "pg_collation") => settings::pg_collation,
        ("pg_catalog", "pg_database") => settings::pg_database,
        ("pg_catalog", "pg_tablespace") => settings::pg_tablespace,
        ("pg_catalog", "pg_roles") => settings::pg_roles,
        ("pg_catalog", "pg_authid") => settings::pg_authid,
        ("pg_catalog", "pg_user" | "pg_shadow") => settings::pg_user,
        ("pg_catalog", "pg_settings") => settings::pg_settings,
        ("information_schema", "tables") => information::tables,
        ("information_schema", "columns") => information::columns,
        ("information_schema", "views") => information::views,
        ("information_schema", "schemata") => information::schemata,
        ("information_schema", "table_constraints") => information::table_constraints,
        ("information_schema", "key_column_usage") => information::key_column_usage,
        ("information_schema", "constraint_column_usage") => information::constraint_column_usage,
        ("information_schema", "enabled_roles") => information::enabled_roles,
        _ => return None,
    })
}

/// Whether the relation exists and never has rows: what it is about does not exist here.
fn is_always_empty(schema: &str, name: &str) -> bool {
    relation(schema, name).is_some_and(|r| maker(r).is_none())
}

/// A system relation as the planner reads it: its rows are made when it is scanned.
pub fn table(cx: &Arc<Context>, schema: &str, name: &str) -> Option<Arc<dyn TableProvider>> {
    let relation = relation(schema, name)?;
    Some(Arc::new(SystemTable { relation, cx: Arc::clone(cx) }))
}

#[derive(Debug)]
struct SystemTable {
    relation: &'static Relation,
    cx: Arc<Context>,
}

impl SystemTable {
    fn rows(&self) -> Result<RecordBatch> {
        let mut rows = Rows::new(self.relation.columns.clone(), self.relation.schema == "pg_catalog")?;
        if let Some(fill) = maker(self.relation) {
            fill(&self.cx, &mut rows)?;
        }
        rows.finish()
    }
}

#[async_trait::async_trait]
impl TableProvider for SystemTable {
    fn schema(&self) -> SchemaRef {
        self.relation.columns.clone()
    }

    fn table_type(&self) -> TableType {
        TableType::View
    }

    async fn scan(
        &self,
        state: &dyn DfSession,
        projection: Option<&Vec<usize>>,
        filters: &[Expr],
        limit: Option<usize>,
    ) -> datafusion::error::Result<Arc<dyn ExecutionPlan>> {
        let rows = MemTable::try_new(self.schema(), vec![vec![self.rows()?]])?;
        rows.scan(state, projection, filters, limit).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sql::catalog::{Column, Entry, Index, MaterializedView, Object, Table, View};

    #[test]
    fn every_line_of_the_list_is_a_relation() {
        let lines = include_str!("relations.txt").lines().filter(|l| !l.starts_with('#'));
        for line in lines {
            assert!(parse(line).is_some(), "{line}");
        }
        assert!(relation("pg_catalog", "pg_class").is_some());
        assert!(relation("pg_catalog", "orders").is_none());
    }

    /// Every relation is filled without an error: no column is misnamed, no value of another type than its column.
    #[test]
    fn every_relation_can_be_read() {
        let mut catalog = Catalog::default();
        let mut add = |name: &str, object: Object| {
            let id = catalog.allocate();
            let mut entry = Entry::new(id, name, "me", object);
            entry.comment = Some(format!("about {name}"));
            catalog.insert(entry).unwrap();
            id
        };
        let mut column = Column::new("k", SqlType::Varchar(Some(3)));
        column.default = Some("'x'".into());
        let columns =
            vec![column, Column::new("n", SqlType::Array(Box::new(SqlType::Numeric(Some((9, 2))))))];
        let table = Table { columns: columns.clone(), key: vec![0], ..Table::default() };
        let on = add("t", Object::Table(table));
        add("i", Object::Index(Index { on, columns: vec!["n".into()] }));
        add("v", Object::View(View { query: "SELECT 1".into(), columns: columns.clone() }));
        add(
            "mv",
            Object::MaterializedView(MaterializedView {
                query: "SELECT 2".into(),
                on_close: false,
                columns,
                reads: Vec::new(),
                former: Vec::new(),
            }),
        );
        let cx = Arc::new(Context {
            catalog,
            user: "me".into(),
            database: "shop".into(),
            settings: vec![("a".into(), "b".into(), "c".into())],
            tick: 1,
            assigned: Mutex::default(),
            system: vec![("sinks".into(), Arc::new(Schema::empty()))],
        });
        let count = |relation: &'static Relation| {
            let table = SystemTable { relation, cx: Arc::clone(&cx) };
            let rows = table.rows().unwrap_or_else(|e| panic!("{}: {e}", relation.name)).num_rows();
            assert!(rows == 0 || !is_always_empty(relation.schema, relation.name));
            rows
        };
        let counts: HashMap<_, _> = RELATIONS.iter().map(|r| (r.name, count(r))).collect();
        // t, its key, i, v, mv; every system relation, tidemill.sinks.
        assert_eq!(counts["pg_class"], 5 + RELATIONS.len() + 1);
        assert_eq!((counts["pg_index"], counts["pg_constraint"], counts["pg_attrdef"]), (2, 1, 3));
        assert_eq!((counts["pg_description"], counts["pg_matviews"], counts["pg_policy"]), (4, 1, 0));
    }
}
