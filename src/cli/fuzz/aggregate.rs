//! Random grouped queries and aggregate functions.

use super::from::From;
use super::query::{Queries, Query, named};
use super::scope::{Col, Scope};
use super::types::Ty;

impl Queries<'_> {
    /// A query with aggregates, with or without GROUP BY.
    pub(super) fn grouped(
        &mut self,
        tys: &[Ty],
        exact: bool,
        from: &From,
        filter: &str,
        scope: &Scope<'_>,
        by: bool,
    ) -> Query {
        let groupable: Vec<&Col> = from.cols.iter().filter(|c| self.style.orders(c.ty)).collect();
        let mut keys: Vec<Col> = Vec::new();
        for _ in 0..if by && !groupable.is_empty() { 1 + self.dice.below(2) } else { 0 } {
            let key = match self.dice.chance(80) {
                true => (*self.dice.pick(&groupable)).clone(),
                false => {
                    let ty = self.dice.pick(&groupable).ty;
                    let own = Scope::alone(&from.cols);
                    // A constant would be the number of a column.
                    match own.column(ty, self.dice) {
                        Some(column) => {
                            Col::computed(format!("coalesce({column}, {})", ty.literal(self.dice)), ty)
                        }
                        None => continue,
                    }
                }
            };
            if keys.iter().all(|k| k.sql != key.sql) {
                keys.push(key);
            }
        }
        let mut cols = keys.clone();
        for _ in 0..1 + self.dice.below(3) {
            let call = self.aggregate(scope);
            cols.push(call);
        }
        let group = match keys.is_empty() {
            true => String::new(),
            false => format!(" GROUP BY {}", self.grouping(&keys)),
        };
        let after = Scope { cols: &cols, outer: scope.outer };
        // Without GROUP BY, an aggregate among the items says that the rows are one group.
        let having = match (!keys.is_empty() || !exact) && self.dice.chance(20) {
            true => format!(" HAVING {}", self.predicate(&after, 2)),
            false => String::new(),
        };
        // The aggregates themselves come first, so that most of them are seen.
        let mut items: Vec<String> = Vec::new();
        let mut given: Vec<Ty> = Vec::new();
        if !exact {
            for col in &cols {
                if keys.is_empty() || self.dice.chance(80) {
                    items.push(col.sql.clone());
                    given.push(col.ty);
                }
            }
            if self.dice.chance(12) {
                let call = self.window(&after, Some(&cols));
                items.push(call.sql);
                given.push(call.ty);
            }
        }
        for ty in tys {
            if items.is_empty() || exact || self.dice.chance(30) {
                items.push(self.expr(*ty, &after, 2));
                given.push(*ty);
            }
        }
        let sql = format!("SELECT {} FROM {}{filter}{group}{having}", named(&items), from.sql);
        Query { sql, tys: given, rows: if keys.is_empty() { 1.0 } else { from.rows / 2.0 + 1.0 } }
    }

    fn grouping(&mut self, keys: &[Col]) -> String {
        let names: Vec<&str> = keys.iter().map(|k| k.sql.as_str()).collect();
        let all = names.join(", ");
        match self.dice.weighted(&[80, 6, 6, 8]) {
            1 => format!("ROLLUP ({all})"),
            2 => format!("CUBE ({all})"),
            3 => format!("GROUPING SETS (({all}), ({}), ())", names[names.len() - 1]),
            _ => all,
        }
    }

    /// An aggregate function over a scope's rows.
    pub(super) fn aggregate(&mut self, scope: &Scope<'_>) -> Col {
        let ty = scope.some_type(self.dice);
        let distinct = if self.dice.chance(12) { "DISTINCT " } else { "" };
        let number = *self.dice.pick(&[Ty::Int2, Ty::Int4, Ty::Int4, Ty::Int8, Ty::Numeric, Ty::Float8]);
        let (call, given, cast) = match self.dice.weighted(&[14, 12, 18, 8, 16, 6, 6, 5, 8, 4, 4]) {
            0 => ("count(*)".to_string(), Ty::Int8, ""),
            1 => {
                let ty = if self.style.orders(ty) { ty } else { Ty::Int4 };
                (format!("count({distinct}{})", self.expr(ty, scope, 1)), Ty::Int8, "")
            }
            2 => {
                let call = format!("sum({distinct}{})", self.expr(number, scope, 2));
                match number {
                    Ty::Int2 | Ty::Int4 => (call, Ty::Int8, ""),
                    Ty::Int8 => (call, Ty::Int8, "::bigint"),
                    Ty::Numeric => (call, Ty::Numeric, "::numeric(12,2)"),
                    _ => (call, Ty::Float8, ""),
                }
            }
            3 => {
                let call = format!("avg({})", self.expr(number, scope, 1));
                match number {
                    Ty::Float8 => (call, Ty::Float8, ""),
                    _ => (call, Ty::Numeric, "::numeric(12,2)"),
                }
            }
            4 => {
                let ty = if ty.has_extrema() { ty } else { number };
                let function = *self.dice.pick(&["min", "max"]);
                (format!("{function}({})", self.expr(ty, scope, 1)), ty, "")
            }
            5 => {
                let function = *self.dice.pick(&["bool_and", "bool_or", "every"]);
                (format!("{function}({})", self.predicate(scope, 1)), Ty::Bool, "")
            }
            6 => {
                let value = self.expr(Ty::Text, scope, 1);
                (format!("string_agg({distinct}{value}, ',' ORDER BY {value})"), Ty::Text, "")
            }
            7 => {
                let value = self.expr(Ty::Int4, scope, 1);
                (format!("array_agg({distinct}{value} ORDER BY {value})"), Ty::Ints, "")
            }
            8 => {
                let function = *self.dice.pick(&["stddev_pop", "var_samp", "stddev", "var_pop", "variance"]);
                (format!("{function}({})", self.expr(Ty::Float8, scope, 1)), Ty::Float8, "")
            }
            9 => {
                let function = *self.dice.pick(&["corr", "covar_pop", "regr_count"]);
                let (y, x) = (self.expr(Ty::Float8, scope, 1), self.expr(Ty::Float8, scope, 1));
                (format!("{function}({y}, {x})"), Ty::Float8, "::float8")
            }
            _ => {
                let function = *self.dice.pick(&["bit_and", "bit_or", "bit_xor"]);
                (format!("{function}({})", self.expr(Ty::Int4, scope, 1)), Ty::Int4, "")
            }
        };
        let filter = match self.dice.chance(15) {
            true => format!(" FILTER (WHERE {})", self.predicate(scope, 1)),
            false => String::new(),
        };
        let sql = match cast.is_empty() {
            true => format!("{call}{filter}"),
            false => format!("({call}{filter}){cast}"),
        };
        Col::computed(sql, given)
    }
}
