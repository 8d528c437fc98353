//! Random FROM clauses: relations, derived tables, functions, and joins of them.

use super::query::Queries;
use super::scope::{Col, Scope};
use super::types::Ty;

/// A name that one column of each side has, both of one type that is compared.
fn shared(cols: &[Col], left_width: usize) -> Option<String> {
    let name = |c: &Col| c.sql.split('.').nth(1).map(str::to_string);
    let (left, right) = cols.split_at(left_width);
    right.iter().find_map(|r| {
        let mut same = left.iter().filter(|l| name(l) == name(r));
        let (first, more) = (same.next()?, same.next());
        let comparable = first.ty == r.ty && (r.ty.is_int() || r.ty == Ty::Text || r.ty == Ty::Date);
        if more.is_none() && comparable { name(r) } else { None }
    })
}

/// The most rows that a FROM clause is guessed to give.
const ROWS_MAX: f64 = 4_000.0;
/// The most that a join by equality is guessed to give, of keys of which each is met by a tenth of the other side.
const JOINED_MAX: f64 = 40_000.0;

/// A FROM clause, or a part of it.
pub struct From {
    /// What stands behind FROM.
    pub sql: String,
    /// The columns that it brings.
    pub cols: Vec<Col>,
    /// A guess at its rows.
    pub rows: f64,
}

impl Queries<'_> {
    /// At most `most` relations, joined.
    pub fn from(&mut self, outer: Option<&Scope<'_>>, most: usize) -> From {
        if most >= 3 && self.dice.chance(15) {
            return self.many(outer);
        }
        let mut from = self.relation(outer, false);
        for _ in 1..1 + self.dice.weighted(&[50, 35, 15][..most.min(3)]) {
            let lateral = self.may_nest() && self.dice.chance(12);
            let scope = Scope { cols: &from.cols, outer };
            let right = if lateral { self.relation(Some(&scope), true) } else { self.relation(outer, false) };
            from = self.join(from, right, outer, lateral);
        }
        from
    }

    /// Three to six relations, each joined by equality with one before it, and at times with two.
    fn many(&mut self, outer: Option<&Scope<'_>>) -> From {
        let mut from = self.relation(outer, false);
        for _ in 0..2 + self.dice.below(4) {
            let left_width = from.cols.len();
            let right = self.relation(outer, false);
            let rows = from.rows.max(right.rows).max(from.rows * right.rows / 10.0);
            let cols: Vec<Col> = from.cols.iter().cloned().chain(right.cols).collect();
            let pairs = self.pairs(&cols, left_width);
            if pairs.is_empty() || rows > ROWS_MAX {
                continue;
            }
            let equal = |(l, r): &(String, String)| format!("{l} = {r}");
            let mut on = vec![equal(self.dice.pick(&pairs))];
            if self.dice.chance(30) {
                on.push(equal(self.dice.pick(&pairs)));
            }
            if self.dice.chance(20) {
                let (l, r) = self.dice.pick(&pairs);
                on.push(format!("{l} {} {r}", self.dice.pick(&["<=", "<>", ">"])));
            }
            let sql = format!("{} INNER JOIN {} ON {}", from.sql, right.sql, on.join(" AND "));
            from = From { sql, cols, rows };
        }
        from
    }

    fn join(&mut self, left: From, right: From, outer: Option<&Scope<'_>>, lateral: bool) -> From {
        let left_width = left.cols.len();
        let cols: Vec<Col> = left.cols.into_iter().chain(right.cols).collect();
        let pairs = self.pairs(&cols, left_width);
        let product = left.rows * right.rows;
        let equal = left.rows.max(right.rows).max(product / 10.0);
        let kinds = ["INNER JOIN", "LEFT JOIN", "RIGHT JOIN", "FULL JOIN"];
        let kind = match lateral {
            true => kinds[self.dice.below(2)],
            false => kinds[self.dice.weighted(&[40, 30, 15, 15])],
        };
        let using = if equal < JOINED_MAX { shared(&cols, left_width) } else { None };
        let (sql, rows) = match self.dice.weighted(&[60, 15, 15, 5, 5, if lateral { 0 } else { 8 }]) {
            5 if using.is_some() => {
                let name = using.unwrap_or_default();
                (format!("{} {kind} {} USING ({name})", left.sql, right.sql), equal)
            }
            0 | 1 if !pairs.is_empty() && equal < JOINED_MAX => {
                let mut on = Vec::new();
                for _ in 0..1 + self.dice.below(2) {
                    let (l, r) = self.dice.pick(&pairs);
                    on.push(format!("{l} = {r}"));
                }
                if kind != "FULL JOIN" && self.dice.chance(25) {
                    on.push(self.predicate(&Scope { cols: &cols, outer }, 1));
                }
                (format!("{} {kind} {} ON {}", left.sql, right.sql, on.join(" AND ")), equal)
            }
            2 if product < ROWS_MAX && kind != "FULL JOIN" => {
                let on = self.predicate(&Scope { cols: &cols, outer }, 2);
                (format!("{} {kind} {} ON {on}", left.sql, right.sql), product)
            }
            _ if product < ROWS_MAX && kind != "FULL JOIN" && self.dice.chance(50) => {
                (format!("{} {kind} {} ON true", left.sql, right.sql), product)
            }
            _ if product < ROWS_MAX => (format!("{} CROSS JOIN {}", left.sql, right.sql), product),
            // Too much for a product.
            _ => {
                let cols = cols[..left_width].to_vec();
                return From { sql: left.sql, cols, rows: left.rows };
            }
        };
        From { sql, cols, rows }
    }

    /// Columns of both sides that can be equal.
    fn pairs(&mut self, cols: &[Col], left_width: usize) -> Vec<(String, String)> {
        let (left, right) = cols.split_at(left_width);
        let style = self.style;
        let equal = |l: &Col, r: &Col| {
            style.orders(l.ty) && l.ty != Ty::Bool && (l.ty == r.ty || l.ty.is_int() && r.ty.is_int())
        };
        left.iter()
            .flat_map(|l| right.iter().filter(move |r| equal(l, r)).map(|r| (l.sql.clone(), r.sql.clone())))
            .collect()
    }

    /// One relation; `lateral`: it sees `outer`'s columns as those of its left side.
    fn relation(&mut self, outer: Option<&Scope<'_>>, lateral: bool) -> From {
        let alias = self.alias("r");
        let nest = if self.may_nest() { 18 } else { 0 };
        let kind = if lateral {
            self.dice.weighted(&[0, 70, 15, 15])
        } else {
            self.dice.weighted(&[76, nest, 3, 2, 3])
        };
        match kind {
            1 => {
                let query = self.nested(|q| q.query(None, outer.filter(|_| lateral), 2));
                let columns = query.tys.iter().enumerate();
                let cols = columns.map(|(i, ty)| Col::plain(format!("{alias}.c{}", i + 1), *ty)).collect();
                let word = if lateral { "LATERAL " } else { "" };
                From { sql: format!("{word}({}) AS {alias}", query.sql), cols, rows: query.rows }
            }
            2 => {
                let to = self.dice.between(0, 6);
                let cols = vec![Col::plain(format!("{alias}.c1"), Ty::Int4)];
                From { sql: format!("generate_series(1, {to}) AS {alias} (c1)"), cols, rows: 5.0 }
            }
            3 => {
                let none: &[Col] = &[];
                let around = outer.filter(|_| lateral).copied().unwrap_or(Scope::alone(none));
                let array = self.leaf(Ty::Ints, &around);
                let cols = vec![Col::plain(format!("{alias}.c1"), Ty::Int4)];
                From { sql: format!("unnest({array}) AS {alias} (c1)"), cols, rows: 3.0 }
            }
            4 => {
                let tys = self.types(None);
                let rows = 1 + self.dice.below(4);
                let values = self.values(&tys, rows);
                let names: Vec<String> = (1..=tys.len()).map(|i| format!("c{i}")).collect();
                let cols = tys.iter().zip(&names).map(|(ty, n)| Col::plain(format!("{alias}.{n}"), *ty));
                let cols = cols.collect();
                let sql = format!("({values}) AS {alias} ({})", names.join(", "));
                From { sql, cols, rows: rows as f64 }
            }
            _ => {
                let relation = self.some_relation();
                let cols = relation.columns.iter();
                let cols = cols.map(|(name, ty)| Col::plain(format!("{alias}.{name}"), *ty)).collect();
                From { sql: format!("{} AS {alias}", relation.name), cols, rows: relation.rows }
            }
        }
    }
}
