//! The language: text → statement → logical plan, and the catalog of what was created. Pure: no IO, no threads.
//!
//! [`parse`] turns a string into [`ast::Parsed`] statements; [`Catalog`] says what names mean;
//! [`plan::Planner`] turns queries and DML into analysed DataFusion plans over collections;
//! [`types`] knows how PostgreSQL's types look in Arrow and in text.

pub mod ast;
pub mod catalog;
pub mod functions;
pub mod parser;
pub mod plan;
pub mod walk;
pub mod watermark;

pub use crate::names::Name;
pub use ast::{ObjectKind, Parsed, Statement};
pub use catalog::{Catalog, Object, ObjectId};
pub use parser::parse;
pub use plan::{Planned, Planner, SessionInfo, SystemCatalog, ViewPlan};

pub use crate::{names, types};
