//! Random window functions.

use super::query::Queries;
use super::scope::{Col, Scope};
use super::types::Ty;

impl Queries<'_> {
    /// A window function over a scope's rows; over a grouped query, its arguments are only `of` these columns.
    pub(super) fn window(&mut self, scope: &Scope<'_>, of: Option<&[Col]>) -> Col {
        let own = of.unwrap_or(scope.cols);
        let own_scope = Scope { cols: own, outer: scope.outer };
        let value = |q: &mut Self, ty: Ty| match of {
            Some(_) => q.leaf(ty, &Scope::alone(own)),
            None => q.expr(ty, &own_scope, 1),
        };
        let ordered: Vec<&Col> = own.iter().filter(|c| self.style.orders(c.ty)).collect();
        let ty = own_scope.some_type(self.dice);
        let number = *self.dice.pick(&[Ty::Int4, Ty::Int8, Ty::Numeric, Ty::Float8]);
        // Whether rows of one rank have different answers; whether a frame means something.
        let (call, given, by_row, framed) = match self.dice.weighted(&[14, 12, 4, 12, 8, 4, 14, 12, 6, 8, 4])
        {
            0 => ("row_number()".to_string(), Ty::Int8, true, false),
            1 => (format!("{}()", self.dice.pick(&["rank", "dense_rank"])), Ty::Int8, false, false),
            2 => (format!("ntile({})", 1 + self.dice.below(4)), Ty::Int4, true, false),
            3 => {
                let function = *self.dice.pick(&["lag", "lead"]);
                let value = value(self, ty);
                let rest = match self.dice.weighted(&[50, 35, 15]) {
                    0 => String::new(),
                    1 => format!(", {}", self.dice.below(3)),
                    _ => format!(", 1, {}", ty.literal(self.dice)),
                };
                (format!("{function}({value}{rest})"), ty, true, false)
            }
            4 => {
                let function = *self.dice.pick(&["first_value", "last_value"]);
                (format!("{function}({})", value(self, ty)), ty, true, true)
            }
            5 => {
                let value = value(self, ty);
                (format!("nth_value({value}, {})", 1 + self.dice.below(3)), ty, true, true)
            }
            6 => {
                let call = format!("sum({})", value(self, number));
                let given = if number == Ty::Int4 { Ty::Int8 } else { number };
                (call, given, false, true)
            }
            7 => ("count(*)".to_string(), Ty::Int8, false, true),
            8 => (format!("avg({})", value(self, Ty::Float8)), Ty::Float8, false, true),
            9 => {
                let ty = if ty.has_extrema() { ty } else { number };
                let function = *self.dice.pick(&["min", "max"]);
                (format!("{function}({})", value(self, ty)), ty, false, true)
            }
            _ => (format!("{}()", self.dice.pick(&["percent_rank", "cume_dist"])), Ty::Float8, false, false),
        };
        let mut parts = Vec::new();
        if !ordered.is_empty() && self.dice.chance(60) {
            parts.push(format!("PARTITION BY {}", self.dice.pick(&ordered).sql));
        }
        if !ordered.is_empty() && self.dice.chance(85) {
            let key = (*self.dice.pick(&ordered)).clone();
            let frame = match framed && self.dice.chance(55) {
                true => self.frame(key.ty),
                false => String::new(),
            };
            let rows_frame = frame.starts_with("ROWS");
            let mut order = vec![format!("{}{}", key.sql, self.direction())];
            // A distance in the values of the key needs it to be the only one.
            let alone = frame.starts_with("RANGE")
                && (frame.contains('\'') || frame.contains(|c: char| c.is_ascii_digit()));
            if !alone && (self.style.portable && (by_row || rows_frame) || self.dice.chance(15)) {
                order.extend(self.tie_breakers(own, &key.sql));
            }
            parts.push(format!("ORDER BY {}", order.join(", ")));
            if !frame.is_empty() {
                parts.push(frame);
            }
            if alone && by_row && self.style.portable {
                return Col::computed(format!("count(*) OVER ({})", parts.join(" ")), Ty::Int8);
            }
        } else if self.style.portable && by_row {
            // Without an order any row may be the first.
            return Col::computed(format!("count(*) OVER ({})", parts.join(" ")), Ty::Int8);
        }
        let cast = match (given, call.starts_with("sum(")) {
            (Ty::Int8, true) => "::bigint",
            (Ty::Numeric, true) => "::numeric(12,2)",
            _ => "",
        };
        let filter = match framed && !by_row && self.dice.chance(8) {
            true if of.is_none() => format!(" FILTER (WHERE {})", self.predicate(&Scope::alone(own), 1)),
            _ => String::new(),
        };
        Col::computed(format!("({call}{filter} OVER ({})){cast}", parts.join(" ")), given)
    }

    /// A frame over an order by a key of that type.
    fn frame(&mut self, key: Ty) -> String {
        let unit = *self.dice.pick(&["ROWS", "ROWS", "RANGE", "GROUPS"]);
        let distance = |q: &mut Self| match (unit, key) {
            ("RANGE", Ty::Int2 | Ty::Int4 | Ty::Int8 | Ty::Numeric | Ty::Float8) => {
                Some(q.dice.below(4).to_string())
            }
            ("RANGE", Ty::Date | Ty::Timestamp | Ty::Timestamptz) => {
                Some(format!("INTERVAL '{} days'", q.dice.below(20)))
            }
            ("RANGE", _) => None,
            _ => Some(q.dice.below(3).to_string()),
        };
        let (a, b) = (distance(self), distance(self));
        let (a, b) = (a.unwrap_or("UNBOUNDED".into()), b.unwrap_or("UNBOUNDED".into()));
        let frame = match self.dice.below(6) {
            0 => "UNBOUNDED PRECEDING AND CURRENT ROW".to_string(),
            1 => "CURRENT ROW AND UNBOUNDED FOLLOWING".to_string(),
            2 => format!("{a} PRECEDING AND {b} FOLLOWING"),
            3 => format!("{a} PRECEDING AND CURRENT ROW"),
            4 => format!("CURRENT ROW AND {b} FOLLOWING"),
            _ => "UNBOUNDED PRECEDING AND UNBOUNDED FOLLOWING".to_string(),
        };
        format!("{unit} BETWEEN {frame}")
    }
}
