//! Random expressions of a wanted type.

use super::query::Queries;
use super::scope::Scope;
use super::types::Ty;

const COMPARISONS: [&str; 6] = ["=", "<>", "<", "<=", ">", ">="];

impl Queries<'_> {
    /// An expression of a type, at most `fuel` operators deep.
    pub fn expr(&mut self, ty: Ty, scope: &Scope<'_>, fuel: u32) -> String {
        if fuel == 0 || self.dice.chance(40) {
            return self.leaf(ty, scope);
        }
        let fuel = fuel - 1;
        match self.dice.weighted(&[10, 10, 6, 4, 3, 55]) {
            0 => {
                let (when, a) = (self.predicate(scope, fuel), self.expr(ty, scope, fuel));
                match self.dice.chance(75) {
                    true => format!("CASE WHEN {when} THEN {a} ELSE {} END", self.expr(ty, scope, fuel)),
                    false => format!("CASE WHEN {when} THEN {a} END"),
                }
            }
            1 => format!("coalesce({}, {})", self.expr(ty, scope, fuel), self.expr(ty, scope, fuel)),
            2 if self.may_nest() => self.scalar_subquery(ty, scope),
            3 if self.style.orders(ty) => {
                format!("NULLIF({}, {})", self.expr(ty, scope, fuel), self.expr(ty, scope, fuel))
            }
            4 if ty.has_extrema() => {
                let function = *self.dice.pick(&["greatest", "least"]);
                format!("{function}({}, {})", self.expr(ty, scope, fuel), self.expr(ty, scope, fuel))
            }
            _ => self.operation(ty, scope, fuel),
        }
    }

    /// A column, or a literal where there is none of that type.
    pub fn leaf(&mut self, ty: Ty, scope: &Scope<'_>) -> String {
        if self.dice.chance(85)
            && let Some(column) = scope.column(ty, self.dice)
        {
            return column;
        }
        match self.dice.chance(8) {
            true => format!("NULL::{}", ty.sql()),
            false => ty.literal(self.dice),
        }
    }

    /// An operator or a function that gives that type.
    fn operation(&mut self, ty: Ty, scope: &Scope<'_>, fuel: u32) -> String {
        let mut e = |ty: Ty| self.expr(ty, scope, fuel);
        match ty {
            Ty::Int2 | Ty::Int4 | Ty::Int8 => return self.whole(ty, scope, fuel),
            Ty::Bool => return self.predicate(scope, fuel),
            Ty::Text => return self.text(scope, fuel),
            _ => {}
        }
        let (a, b) = (e(ty), e(ty));
        match ty {
            Ty::Numeric => match self.dice.below(6) {
                0 => format!("({a} + {b})::numeric(12,2)"),
                1 => format!("({a} - {b})::numeric(12,2)"),
                2 => format!("({a} * {b})::numeric(12,2)"),
                3 => format!("abs({a})"),
                4 => format!("round({a}, 1)::numeric(12,2)"),
                _ => format!("({})::numeric(12,2)", self.expr(Ty::Int4, scope, fuel)),
            },
            Ty::Float8 => match self.dice.below(7) {
                0 => format!("({a} + {b})"),
                1 => format!("({a} - {b})"),
                2 => format!("({a} * {b})"),
                3 => format!("({a} / NULLIF({b}, 0))"),
                4 => format!("sqrt(abs({a}))"),
                5 => format!("floor({a})"),
                _ => format!("({})::float8", self.expr(Ty::Int4, scope, fuel)),
            },
            Ty::Date => match self.dice.below(3) {
                0 => format!("({a} + {})", self.expr(Ty::Int4, scope, fuel)),
                1 => format!("({})::date", self.expr(Ty::Timestamp, scope, fuel)),
                _ => a,
            },
            Ty::Timestamp => match self.dice.below(4) {
                0 => format!("({a} + {})", self.expr(Ty::Interval, scope, fuel)),
                1 => format!("({a} - {})", self.expr(Ty::Interval, scope, fuel)),
                2 => format!("date_trunc('{}', {a})", self.dice.pick(&["day", "hour", "month", "week"])),
                _ => format!("({})::timestamp", self.expr(Ty::Date, scope, fuel)),
            },
            Ty::Timestamptz => match self.dice.below(2) {
                0 => format!("({a} + {})", self.expr(Ty::Interval, scope, fuel)),
                _ => a,
            },
            Ty::Interval => match self.dice.below(4) {
                0 => format!("({a} + {b})"),
                1 => format!("({a} - {b})"),
                2 => {
                    let (a, b) =
                        (self.expr(Ty::Timestamp, scope, fuel), self.expr(Ty::Timestamp, scope, fuel));
                    format!("({a} - {b})")
                }
                _ => format!("({a} * 2)"),
            },
            Ty::Jsonb => match self.dice.below(3) {
                0 => format!("({a} -> 'b')"),
                1 => format!("({a} -> 0)"),
                _ => a,
            },
            Ty::Ints => match self.dice.below(3) {
                0 => format!("array_append({a}, {})", self.expr(Ty::Int4, scope, fuel)),
                1 => format!("({a} || {b})"),
                _ => {
                    format!("ARRAY[{}, {}]", self.expr(Ty::Int4, scope, fuel), self.leaf(Ty::Int4, scope))
                }
            },
            Ty::Texts => match self.dice.below(3) {
                0 => format!("array_append({a}, {})", self.expr(Ty::Text, scope, fuel)),
                1 => format!("({a} || {b})"),
                _ => format!("string_to_array({}, ',')", self.expr(Ty::Text, scope, fuel)),
            },
            _ => a,
        }
    }

    fn whole(&mut self, ty: Ty, scope: &Scope<'_>, fuel: u32) -> String {
        let (a, b) = (self.expr(ty, scope, fuel), self.expr(ty, scope, fuel));
        match self.dice.below(14) {
            0 | 1 => format!("({a} + {b})"),
            2 | 3 => format!("({a} - {b})"),
            4 => format!("({a} * {b})"),
            5 => format!("({a} / NULLIF({b}, 0))"),
            6 => format!("({a} % NULLIF({b}, 0))"),
            7 => format!("abs({a})"),
            8 => format!("(- {a})"),
            9 if self.style.fails => format!("({a} / {b})"),
            9 if ty == Ty::Int8 => format!("({})::bigint", self.expr(Ty::Int4, scope, fuel)),
            10 => format!("length({})::{}", self.expr(Ty::Text, scope, fuel), ty.sql()),
            11 if ty == Ty::Int4 => {
                let part = *self.dice.pick(&["day", "month", "dow", "hour"]);
                format!("extract({part} FROM {})::int", self.expr(Ty::Timestamp, scope, fuel))
            }
            12 if ty == Ty::Int4 => {
                let array = self.expr(Ty::Ints, scope, fuel);
                match self.dice.chance(50) {
                    true => format!("cardinality({array})"),
                    false => format!("({array})[1]"),
                }
            }
            13 if ty == Ty::Int4 => format!("({})::int", self.expr(Ty::Bool, scope, fuel)),
            _ => a,
        }
    }

    fn text(&mut self, scope: &Scope<'_>, fuel: u32) -> String {
        let a = self.expr(Ty::Text, scope, fuel);
        match self.dice.below(11) {
            0 | 1 => format!("({a} || {})", self.expr(Ty::Text, scope, fuel)),
            2 => format!("upper({a})"),
            3 => format!("substr({a}, 1, {})", self.dice.below(3)),
            4 => format!("replace({a}, 'a', {})", self.leaf(Ty::Text, scope)),
            5 => format!("trim({a})"),
            6 => format!("({})::text", self.expr(Ty::Int4, scope, fuel)),
            7 => format!("({})::text", self.expr(Ty::Date, scope, fuel)),
            8 => format!("({} ->> 'a')", self.expr(Ty::Jsonb, scope, fuel)),
            9 => format!("left({a}, {})", self.dice.between(-1, 2)),
            _ => format!("concat({a}, {})", self.expr(Ty::Text, scope, fuel)),
        }
    }

    /// A condition.
    pub fn predicate(&mut self, scope: &Scope<'_>, fuel: u32) -> String {
        let mut ty = scope.some_type(self.dice);
        if !self.style.orders(ty) {
            ty = Ty::Int4;
        }
        let fuel = fuel.saturating_sub(1);
        let not = *self.dice.pick(&["", "", "NOT "]);
        let subqueries = if self.may_nest() { 6 } else { 0 };
        let weights = [34, 8, 5, 5, 8, 6, 12, 4, 3, 4, subqueries, subqueries, subqueries / 2];
        match self.dice.weighted(&weights) {
            0 => {
                let op = *self.dice.pick(&COMPARISONS);
                format!("({} {op} {})", self.expr(ty, scope, fuel), self.expr(ty, scope, fuel))
            }
            1 => {
                let ty = scope.some_type(self.dice);
                format!("({} IS {not}NULL)", self.expr(ty, scope, fuel))
            }
            2 => {
                let (a, b) = (self.expr(ty, scope, fuel), self.expr(ty, scope, fuel));
                format!("({a} IS {not}DISTINCT FROM {b})")
            }
            3 => {
                let [a, b, c] = [(); 3].map(|()| self.expr(ty, scope, fuel));
                format!("({a} {not}BETWEEN {b} AND {c})")
            }
            4 => {
                let list: Vec<String> =
                    (0..1 + self.dice.below(3)).map(|_| self.leaf(ty, &Scope::alone(&[]))).collect();
                format!("({} {not}IN ({}))", self.expr(ty, scope, fuel), list.join(", "))
            }
            5 => {
                let pattern = *self.dice.pick(&["'a%'", "'%b'", "'_'", "'%''%'", "''"]);
                let like = *self.dice.pick(&["LIKE", "ILIKE"]);
                format!("({} {not}{like} {pattern})", self.expr(Ty::Text, scope, fuel))
            }
            6 => {
                let op = *self.dice.pick(&["AND", "OR"]);
                format!("({} {op} {})", self.predicate(scope, fuel), self.predicate(scope, fuel))
            }
            7 => format!("(NOT {})", self.predicate(scope, fuel)),
            8 => match scope.column(Ty::Bool, self.dice) {
                Some(column) => column,
                None => format!(
                    "({} IS {not}{})",
                    self.predicate(scope, fuel),
                    self.dice.pick(&["TRUE", "FALSE", "UNKNOWN"])
                ),
            },
            9 => {
                let (value, array) = (self.expr(Ty::Int4, scope, fuel), self.expr(Ty::Ints, scope, fuel));
                // A subquery in brackets would be one of rows, not of arrays.
                let cast = if array.starts_with("(SELECT") { "::int[]" } else { "" };
                format!("({value} = ANY ({array}{cast}))")
            }
            10 => format!("({not}EXISTS ({}))", self.subquery(&[Ty::Int4], scope)),
            11 => {
                let left = self.expr(ty, scope, fuel);
                format!("({left} {not}IN ({}))", self.subquery(&[ty], scope))
            }
            _ => {
                let left = self.expr(ty, scope, fuel);
                let (op, of) = (*self.dice.pick(&COMPARISONS), *self.dice.pick(&["ANY", "ALL"]));
                format!("({left} {op} {of} ({}))", self.subquery(&[ty], scope))
            }
        }
    }

    /// A subquery of one value.
    fn scalar_subquery(&mut self, ty: Ty, scope: &Scope<'_>) -> String {
        self.nested(|q| {
            let from = q.from(Some(scope), 2);
            let inner = Scope { cols: &from.cols, outer: Some(scope) };
            let filter =
                if q.dice.chance(70) { format!(" WHERE {}", q.predicate(&inner, 2)) } else { String::new() };
            let value = match ty {
                Ty::Int8 if q.dice.chance(50) => "count(*)".to_string(),
                Ty::Bool => format!("bool_or({})", q.predicate(&inner, 1)),
                ty if ty.has_extrema() && q.dice.chance(75) => {
                    let function = *q.dice.pick(&["min", "max"]);
                    format!("{function}({})", q.expr(ty, &inner, 1))
                }
                ty => {
                    let value = q.expr(ty, &inner, 1);
                    return match q.style.orders(ty) && !q.style.fails {
                        true => {
                            format!("(SELECT {value} AS c1 FROM {}{filter} ORDER BY 1 LIMIT 1)", from.sql)
                        }
                        // More than one row is an error.
                        false => format!("(SELECT {value} AS c1 FROM {}{filter})", from.sql),
                    };
                }
            };
            format!("(SELECT {value} AS c1 FROM {}{filter})", from.sql)
        })
    }
}
