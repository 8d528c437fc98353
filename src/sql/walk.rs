//! Walks over syntax trees, compiled once for all visitors.
//!
//! sqlparser's `visit` is generic over the visitor and recurses through several hundred tree types, so every visitor
//! given to it directly costs half a megabyte of code and its share of every build. Here it only ever sees one type.

use std::ops::ControlFlow;

use datafusion::sql::sqlparser::ast::{
    Expr, ObjectName, Query, Select, Statement, TableFactor, ValueWithSpan, Visit, VisitMut, Visitor,
    VisitorMut,
};

/// Shows a tree to a visitor; gives what it broke off with, if it did.
pub fn walk<V: Visitor>(tree: &impl Visit, visitor: &mut V) -> ControlFlow<V::Break> {
    let mut keeping = Keeping { visitor, broke: None };
    // What it broke off with is kept aside.
    let _ = tree.visit(&mut Shown(&mut keeping));
    keeping.broke.map_or(ControlFlow::Continue(()), ControlFlow::Break)
}

/// As [`walk`], for a visitor that changes the tree.
pub fn walk_mut<V: VisitorMut>(tree: &mut impl VisitMut, visitor: &mut V) -> ControlFlow<V::Break> {
    let mut keeping = Keeping { visitor, broke: None };
    let _ = tree.visit(&mut Changed(&mut keeping));
    keeping.broke.map_or(ControlFlow::Continue(()), ControlFlow::Break)
}

/// A visitor, and what it broke off with: its own type of it would be a type parameter of the walk.
struct Keeping<'v, V, B> {
    visitor: &'v mut V,
    broke: Option<B>,
}

impl<V, B> Keeping<'_, V, B> {
    fn keep(&mut self, call: impl FnOnce(&mut V) -> ControlFlow<B>) -> ControlFlow<()> {
        match call(self.visitor) {
            ControlFlow::Continue(()) => ControlFlow::Continue(()),
            ControlFlow::Break(value) => {
                self.broke = Some(value);
                ControlFlow::Break(())
            }
        }
    }
}

/// The one visitor type of [`walk`].
struct Shown<'a>(&'a mut dyn Visitor<Break = ()>);

/// The one visitor type of [`walk_mut`].
struct Changed<'a>(&'a mut dyn VisitorMut<Break = ()>);

macro_rules! reference {
    (shared $node:ty) => {
        &$node
    };
    (exclusive $node:ty) => {
        &mut $node
    };
}

macro_rules! hand_on {
    ($trait:ident, $outer:ident, $how:ident, $($method:ident: $node:ty),*) => {
        impl $trait for $outer<'_> {
            type Break = ();
            $(fn $method(&mut self, node: reference!($how $node)) -> ControlFlow<()> {
                self.0.$method(node)
            })*
        }

        impl<V: $trait> $trait for Keeping<'_, V, V::Break> {
            type Break = ();
            $(fn $method(&mut self, node: reference!($how $node)) -> ControlFlow<()> {
                self.keep(|visitor| visitor.$method(node))
            })*
        }
    };
}

macro_rules! hand_all_on {
    ($trait:ident, $outer:ident, $how:ident) => {
        hand_on!(
            $trait, $outer, $how,
            pre_visit_query: Query, post_visit_query: Query,
            pre_visit_select: Select, post_visit_select: Select,
            pre_visit_relation: ObjectName, post_visit_relation: ObjectName,
            pre_visit_table_factor: TableFactor, post_visit_table_factor: TableFactor,
            pre_visit_expr: Expr, post_visit_expr: Expr,
            pre_visit_statement: Statement, post_visit_statement: Statement,
            pre_visit_value: ValueWithSpan, post_visit_value: ValueWithSpan
        );
    };
}

hand_all_on!(Visitor, Shown, shared);
hand_all_on!(VisitorMut, Changed, exclusive);
