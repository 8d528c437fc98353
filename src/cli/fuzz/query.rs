//! Random queries.
//!
//! Every query names its columns `c1`, `c2`, …; every relation in FROM has an alias of its own. What SQL leaves open
//! (the rows of a LIMIT, numbers of ties) is only asked where [`Style::portable`] is off, or with a total order.

use super::dice::Dice;
use super::scope::{Col, Scope};
use super::types::Ty;

/// What may come up in queries.
#[derive(Clone, Copy, Debug)]
pub struct Style {
    /// Only what PostgreSQL has, with one possible answer.
    pub portable: bool,
    /// Divisions by zero, subqueries of many rows.
    pub fails: bool,
    /// How deep subqueries may stand in subqueries.
    pub nest: u32,
}

impl Style {
    /// Whether values of a type are compared and ordered: those of `jsonb` never, arrays (with NULLs in them) only
    /// where no PostgreSQL looks on.
    pub fn orders(self, ty: Ty) -> bool {
        ty != Ty::Jsonb && !(self.portable && matches!(ty, Ty::Ints | Ty::Texts))
    }
}

/// A relation that queries can name.
#[derive(Clone, Debug)]
pub struct Relation {
    pub name: String,
    pub columns: Vec<(String, Ty)>,
    /// A guess at its rows.
    pub rows: f64,
}

/// A query with what it gives.
#[derive(Clone, Debug)]
pub struct Query {
    pub sql: String,
    /// Types of its columns.
    pub tys: Vec<Ty>,
    /// A guess at its rows.
    pub rows: f64,
}

/// Makes queries over relations.
pub struct Queries<'a> {
    pub dice: &'a mut Dice,
    pub style: Style,
    relations: Vec<Relation>,
    /// Names given so far.
    names: usize,
    /// How deep subqueries may still stand.
    nest: u32,
    /// How many subqueries there may still be.
    subqueries: u32,
}

/// How many subqueries one query has at most.
const SUBQUERIES_MAX: u32 = 5;

impl<'a> Queries<'a> {
    /// Queries over these relations; there is at least one.
    pub fn new(dice: &'a mut Dice, style: Style, relations: Vec<Relation>) -> Queries<'a> {
        Queries { dice, style, relations, names: 0, nest: style.nest, subqueries: SUBQUERIES_MAX }
    }

    /// A query to make a view of.
    pub fn top(&mut self) -> Query {
        self.query(None, None, 3)
    }

    pub(super) fn may_nest(&self) -> bool {
        self.nest > 0 && self.subqueries > 0
    }

    /// Makes something one level deeper.
    pub(super) fn nested<T>(&mut self, make: impl FnOnce(&mut Self) -> T) -> T {
        self.subqueries = self.subqueries.saturating_sub(1);
        self.nest -= 1;
        let made = make(self);
        self.nest += 1;
        made
    }

    /// A name that no other relation of the query has.
    pub(super) fn alias(&mut self, prefix: &str) -> String {
        self.names += 1;
        format!("{prefix}{}", self.names)
    }

    pub(super) fn some_relation(&mut self) -> Relation {
        self.dice.pick(&self.relations).clone()
    }

    /// Types for a query's columns: mostly such as relations have.
    pub(super) fn types(&mut self, scope: Option<&Scope<'_>>) -> Vec<Ty> {
        let known: Vec<Ty> = self.relations.iter().flat_map(|r| r.columns.iter().map(|c| c.1)).collect();
        (0..1 + self.dice.weighted(&[25, 40, 25, 10]))
            .map(|_| match scope {
                Some(scope) if self.dice.chance(30) => scope.some_type(self.dice),
                _ => *self.dice.pick(&known),
            })
            .collect()
    }

    /// A subquery inside an expression.
    pub(super) fn subquery(&mut self, tys: &[Ty], scope: &Scope<'_>) -> String {
        self.nested(|q| q.query(Some(tys), Some(scope), 2).sql)
    }

    /// VALUES of rows of these types.
    pub(super) fn values(&mut self, tys: &[Ty], rows: usize) -> String {
        let row = |q: &mut Self| {
            let cells: Vec<String> = tys
                .iter()
                .map(|ty| match q.dice.chance(10) {
                    true => format!("NULL::{}", ty.sql()),
                    false => ty.literal(q.dice),
                })
                .collect();
            format!("({})", cells.join(", "))
        };
        let rows: Vec<String> = (0..rows).map(|_| row(self)).collect();
        format!("VALUES {}", rows.join(", "))
    }

    /// A query of these types or of any, over at most `most` relations at once; it may refer to `outer`.
    pub(super) fn query(&mut self, wanted: Option<&[Ty]>, outer: Option<&Scope<'_>>, most: usize) -> Query {
        let exact = wanted.is_some();
        let tys = wanted.map_or_else(|| self.types(outer), <[Ty]>::to_vec);
        let deep = if self.may_nest() { 10 } else { 0 };
        let with = if self.may_nest() && outer.is_none() { 8 } else { 0 };
        let recursive = if exact { 0 } else { with / 3 };
        let mut query = match self.dice.weighted(&[80, deep, with, recursive]) {
            1 => self.set_operation(&tys, outer, most),
            2 => return self.with(&tys, exact, most),
            3 => return self.recursive(),
            _ => self.select(&tys, exact, outer, most),
        };
        self.limit(&mut query);
        query
    }

    /// Now and then an order, with LIMIT or OFFSET.
    fn limit(&mut self, query: &mut Query) {
        let orderable = query.tys.iter().all(|ty| self.style.orders(*ty));
        if !self.dice.chance(14) || query.sql.contains("DISTINCT ON") {
            return;
        }
        let mut order: Vec<usize> =
            (1..=query.tys.len()).filter(|i| self.style.orders(query.tys[i - 1])).collect();
        for i in (1..order.len()).rev() {
            order.swap(i, self.dice.below(i + 1));
        }
        if !self.style.portable {
            order.truncate(self.dice.below(order.len() + 1));
        }
        let keys: Vec<String> = order.iter().map(|c| format!("{c}{}", self.direction())).collect();
        let order = if keys.is_empty() { String::new() } else { format!(" ORDER BY {}", keys.join(", ")) };
        let mut sql = format!("{}{order}", query.sql);
        if orderable || !self.style.portable {
            let limit = *self.dice.pick(&[0, 1, 2, 3, 5, 10, 50]);
            match self.dice.weighted(&[65, 20, 15]) {
                0 => sql.push_str(&format!(" LIMIT {limit}")),
                1 => sql.push_str(&format!(" LIMIT {limit} OFFSET {}", 1 + self.dice.below(4))),
                _ => sql.push_str(&format!(" OFFSET {}", self.dice.below(4))),
            }
            query.rows = query.rows.min(f64::from(limit));
        }
        query.sql = sql;
    }

    /// What orders rows further that have the same `key`, until only equal ones are left.
    pub(super) fn tie_breakers(&self, cols: &[Col], key: &str) -> Vec<String> {
        let others = cols.iter().filter(|c| c.sql != key);
        let ordered = |c: &Col| match self.style.orders(c.ty) {
            true => c.sql.clone(),
            false => format!("{}::text", c.sql),
        };
        others.map(ordered).collect()
    }

    /// How a key is ordered.
    pub(super) fn direction(&mut self) -> &'static str {
        self.dice.word(&["", "", " DESC", " NULLS FIRST", " DESC NULLS LAST"])
    }

    fn set_operation(&mut self, tys: &[Ty], outer: Option<&Scope<'_>>, most: usize) -> Query {
        // Sets are told apart by equality, which not everything has.
        let all =
            if tys.iter().all(|ty| self.style.orders(*ty)) { *self.dice.pick(&["", " ALL"]) } else { " ALL" };
        let op = match all.is_empty() || tys.iter().all(|ty| self.style.orders(*ty)) {
            true => *self.dice.pick(&["UNION", "UNION", "INTERSECT", "EXCEPT"]),
            false => "UNION",
        };
        let left = self.nested(|q| q.query(Some(tys), outer, most.min(2)));
        if !self.may_nest() {
            return left;
        }
        let right = self.nested(|q| q.query(Some(tys), outer, most.min(2)));
        let sql = format!("({}) {op}{all} ({})", left.sql, right.sql);
        Query { sql, tys: tys.to_vec(), rows: left.rows + right.rows }
    }

    /// A query over one or two named ones, which it may use often.
    fn with(&mut self, tys: &[Ty], exact: bool, most: usize) -> Query {
        let before = self.relations.len();
        let mut parts = Vec::new();
        for _ in 0..1 + self.dice.below(2) {
            if !self.may_nest() {
                break;
            }
            let name = self.alias("w");
            let part = self.nested(|q| q.query(None, None, 2));
            let columns = part.tys.iter().enumerate().map(|(i, ty)| (format!("c{}", i + 1), *ty)).collect();
            parts.push(format!("{name} AS ({})", part.sql));
            let relation = Relation { name, columns, rows: part.rows };
            // Twice, so that it is used more often than others.
            self.relations.extend([relation.clone(), relation]);
        }
        let main = self.select(tys, exact, None, most);
        self.relations.truncate(before);
        if parts.is_empty() {
            return main;
        }
        Query { sql: format!("WITH {} {}", parts.join(", "), main.sql), ..main }
    }

    /// Paths in a relation, or a counter.
    fn recursive(&mut self) -> Query {
        let name = self.alias("w");
        let relation = self.some_relation();
        let numbers: Vec<&String> =
            relation.columns.iter().filter(|c| c.1 == Ty::Int4).map(|c| &c.0).collect();
        let (sql, tys, rows) = match numbers[..] {
            [a, .., b] => {
                let table = &relation.name;
                let steps = format!(
                    "SELECT {a} AS c1, {b} AS c2 FROM {table} UNION \
                     SELECT {name}.c1, r.{b} FROM {name} JOIN {table} AS r ON {name}.c2 = r.{a}"
                );
                (steps, vec![Ty::Int4, Ty::Int4], 100.0)
            }
            [a] => {
                let to = self.dice.between(1, 6);
                let all = *self.dice.pick(&["", " ALL"]);
                let table = &relation.name;
                let steps = format!(
                    "SELECT {a} AS c1, 1 AS c2 FROM {table} UNION{all} \
                     SELECT {name}.c1 + 1, {name}.c2 + 1 FROM {name} WHERE {name}.c2 < {to}"
                );
                (steps, vec![Ty::Int4, Ty::Int4], relation.rows * to as f64)
            }
            [] => {
                let to = self.dice.between(1, 6);
                (
                    format!(
                        "SELECT 1 AS c1 UNION ALL SELECT {name}.c1 + 1 FROM {name} WHERE {name}.c1 < {to}"
                    ),
                    vec![Ty::Int4],
                    6.0,
                )
            }
        };
        let columns: Vec<(String, Ty)> =
            tys.iter().enumerate().map(|(i, ty)| (format!("c{}", i + 1), *ty)).collect();
        let names: Vec<&str> = columns.iter().map(|c| c.0.as_str()).collect();
        let head = format!("WITH RECURSIVE {name} ({}) AS ({sql})", names.join(", "));
        let others = std::mem::take(&mut self.relations);
        self.relations.push(Relation { name, columns, rows });
        // The others may stand beside it.
        if self.dice.chance(40) {
            self.relations.extend(others.iter().cloned());
        }
        let main = self.select(&tys, false, None, 2);
        self.relations = others;
        Query { sql: format!("{head} {}", main.sql), ..main }
    }

    /// One SELECT; `exact`: of these columns and no others.
    fn select(&mut self, tys: &[Ty], exact: bool, outer: Option<&Scope<'_>>, most: usize) -> Query {
        if self.dice.chance(2) {
            let rows = 1 + self.dice.below(4);
            let columns: Vec<String> = (1..=tys.len()).map(|i| format!("c{i}")).collect();
            let values = self.values(tys, rows);
            let (alias, columns) = (self.alias("v"), columns.join(", "));
            let sql = format!("SELECT {columns} FROM ({values}) AS {alias} ({columns})");
            return Query { sql, tys: tys.to_vec(), rows: rows as f64 };
        }
        let from = self.from(outer, most);
        let scope = Scope { cols: &from.cols, outer };
        let filter = match self.dice.chance(55) {
            true => format!(" WHERE {}", self.predicate(&scope, 3)),
            false => String::new(),
        };
        match self.dice.weighted(&[45, 25, 7, if exact { 0 } else { 15 }, 6]) {
            1 => self.grouped(tys, exact, &from, &filter, &scope, true),
            2 => self.grouped(tys, exact, &from, &filter, &scope, false),
            3 => {
                let calls: Vec<Col> =
                    (0..1 + self.dice.below(2)).map(|_| self.window(&scope, None)).collect();
                let tys: Vec<Ty> = calls.iter().map(|c| c.ty).chain(tys.iter().copied()).collect();
                let mut items: Vec<String> = calls.into_iter().map(|c| c.sql).collect();
                for ty in &tys[items.len()..] {
                    items.push(self.expr(*ty, &scope, 1));
                }
                let sql = format!("SELECT {} FROM {}{filter}", named(&items), from.sql);
                Query { sql, tys, rows: from.rows }
            }
            4 => self.distinct_on(tys, &from, &filter, &scope),
            _ => {
                let items: Vec<String> = tys.iter().map(|ty| self.expr(*ty, &scope, 3)).collect();
                let comparable = tys.iter().all(|ty| self.style.orders(*ty));
                let distinct = if comparable && self.dice.chance(15) { "DISTINCT " } else { "" };
                let sql = format!("SELECT {distinct}{} FROM {}{filter}", named(&items), from.sql);
                Query { sql, tys: tys.to_vec(), rows: from.rows }
            }
        }
    }

    fn distinct_on(
        &mut self,
        tys: &[Ty],
        from: &super::from::From,
        filter: &str,
        scope: &Scope<'_>,
    ) -> Query {
        let ordered: Vec<&Col> = from.cols.iter().filter(|c| self.style.orders(c.ty)).collect();
        let Some(key) = ordered.first().map(|_| self.dice.pick(&ordered).sql.clone()) else {
            let items: Vec<String> = tys.iter().map(|ty| self.expr(*ty, scope, 2)).collect();
            let sql = format!("SELECT {} FROM {}{filter}", named(&items), from.sql);
            return Query { sql, tys: tys.to_vec(), rows: from.rows };
        };
        let mut order = vec![format!("{key}{}", self.direction())];
        for column in self.tie_breakers(&from.cols, &key) {
            if self.style.portable || self.dice.chance(40) {
                order.push(format!("{column}{}", self.direction()));
            }
        }
        let items: Vec<String> =
            tys.iter().map(|ty| self.leaf(*ty, &Scope { cols: &from.cols, outer: None })).collect();
        let sql = format!(
            "SELECT DISTINCT ON ({key}) {} FROM {}{filter} ORDER BY {}",
            named(&items),
            from.sql,
            order.join(", ")
        );
        Query { sql, tys: tys.to_vec(), rows: from.rows }
    }
}

/// Items with their names.
pub fn named(items: &[String]) -> String {
    let items = items.iter().enumerate().map(|(i, item)| format!("{item} AS c{}", i + 1));
    items.collect::<Vec<_>>().join(", ")
}
