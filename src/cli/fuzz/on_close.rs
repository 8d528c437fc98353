//! Random watermarks, and views that give windows when they close.

use super::dice::Dice;
use super::query::Query;
use super::schema::{Column, Table};
use super::types::Ty;

/// A delay for the first timestamp among a table's columns, if there is one: some of the values that such columns have are
/// always late, others only at times.
pub fn delay(dice: &mut Dice, columns: &[Column]) -> Option<(usize, &'static str)> {
    let column = columns.iter().position(|c| matches!(c.ty, Ty::Timestamp | Ty::Timestamptz))?;
    Some((column, *dice.pick(&["1 second", "1 day", "20 days", "45 days"])))
}

/// A query that ends in EMIT ON WINDOW CLOSE, over a table that has a watermark.
pub fn query(dice: &mut Dice, table: &Table) -> Option<Query> {
    let (column, _) = table.delay?;
    let (at, ty) = (&table.columns[column].name, table.columns[column].ty);
    let size = *dice.pick(&["1 hour", "1 day", "3 days", "30 days"]);
    let name = &table.name;
    let (from, window) = match dice.weighted(&[35, 20, 20, 10, 15]) {
        0 => (format!("TUMBLE({name}, {at}, INTERVAL '{size}')"), "window_start".to_string()),
        1 => {
            let from = format!("HOP({name}, {at}, INTERVAL '1 day', INTERVAL '{} days')", 1 + dice.below(4));
            (from, "window_end".to_string())
        }
        2 => (name.clone(), at.clone()),
        3 => (name.clone(), format!("date_trunc('{}', {at})", dice.pick(&["minute", "day", "week"]))),
        _ => (format!("SESSION({name}, {at}, INTERVAL '{size}')"), "window_end".to_string()),
    };
    let mut keys = vec![window];
    let mut tys = vec![ty];
    let others: Vec<&Column> = table.columns.iter().filter(|c| c.ty == Ty::Text || c.ty.is_int()).collect();
    if !others.is_empty() && dice.chance(50) {
        let key = *dice.pick(&others);
        keys.push(key.name.clone());
        tys.push(key.ty);
    }
    let mut calls = vec![("count(*)".to_string(), Ty::Int8)];
    let measured = dice.pick(&table.columns).clone();
    if dice.chance(60) {
        calls.push((format!("count(DISTINCT {})", measured.name), Ty::Int8));
    }
    if measured.ty.has_extrema() && dice.chance(60) {
        calls.push((format!("{}({})", dice.pick(&["min", "max"]), measured.name), measured.ty));
    }
    if measured.ty == Ty::Text && dice.chance(50) {
        calls.push((format!("string_agg({0}, ',' ORDER BY {0})", measured.name), Ty::Text));
    }
    tys.extend(calls.iter().map(|c| c.1));
    let columns = keys.iter().chain(calls.iter().map(|c| &c.0)).enumerate();
    let columns: Vec<String> = columns.map(|(i, e)| format!("{e} AS c{}", i + 1)).collect();
    let filter = match others.first() {
        Some(column) if dice.chance(30) => format!(" WHERE {} IS NOT NULL", column.name),
        _ => String::new(),
    };
    let having = if dice.chance(20) { " HAVING count(*) > 1" } else { "" };
    let sql = format!(
        "SELECT {} FROM {from}{filter} GROUP BY {}{having} EMIT ON WINDOW CLOSE",
        columns.join(", "),
        keys.join(", ")
    );
    Some(Query { sql, tys, rows: 20.0 })
}
