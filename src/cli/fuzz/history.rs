//! Random histories of tables.

use super::dice::Dice;
use super::query::{Queries, Relation, Style};
use super::schema::Table;
use super::scope::{Col, Scope};
use super::script::Write;
use super::types::Ty;

/// The writes of one transaction; `bulk`: of about so many rows.
pub fn transaction(dice: &mut Dice, style: Style, tables: &[Table], bulk: Option<usize>) -> Vec<Write> {
    if let Some(rows) = bulk {
        let table = dice.pick(tables).clone();
        return vec![many(dice, &table, rows)];
    }
    (0..1 + dice.weighted(&[70, 20, 10])).map(|_| write(dice, style, tables)).collect()
}

fn write(dice: &mut Dice, style: Style, tables: &[Table]) -> Write {
    let table = dice.pick(tables).clone();
    match dice.weighted(&[52, 20, 18, 3, 2, 5]) {
        0 => insert(dice, &table),
        1 => {
            let first = if table.key > 0 && dice.chance(90) { table.key } else { 0 };
            if first >= table.columns.len() {
                return insert(dice, &table);
            }
            let column = &table.columns[first + dice.below(table.columns.len() - first)];
            let value = value(dice, style, &table, column.ty);
            let filter = filter(dice, style, tables, &table);
            Write::plain(format!("UPDATE {} SET {} = {value}{filter}", table.name, column.name))
        }
        2 => {
            let filter = filter(dice, style, tables, &table);
            Write::plain(format!("DELETE FROM {}{filter}", table.name))
        }
        3 => Write::plain(format!("DELETE FROM {}", table.name)),
        4 => Write::plain(format!("TRUNCATE {}", table.name)),
        _ => match table.key {
            // Its own rows once more; some of them.
            0 => Write::plain(format!(
                "INSERT INTO {0} SELECT * FROM {0}{1}",
                table.name,
                filter(dice, style, tables, &table)
            )),
            _ => insert(dice, &table),
        },
    }
}

fn relation(table: &Table) -> Relation {
    let columns = table.columns.iter().map(|c| (c.name.clone(), c.ty)).collect();
    Relation { name: table.name.clone(), columns, rows: 20.0 }
}

fn columns(table: &Table) -> Vec<Col> {
    table.columns.iter().map(|c| Col::plain(format!("{}.{}", table.name, c.name), c.ty)).collect()
}

fn value(dice: &mut Dice, style: Style, table: &Table, ty: Ty) -> String {
    match dice.below(10) {
        0 => "NULL".to_string(),
        1..5 => ty.value(dice),
        _ => {
            let (cols, style) = (columns(table), Style { nest: 0, ..style });
            Queries::new(dice, style, vec![relation(table)]).expr(ty, &Scope::alone(&cols), 2)
        }
    }
}

fn filter(dice: &mut Dice, style: Style, tables: &[Table], table: &Table) -> String {
    let cols = columns(table);
    // Mostly one value of one column: a part of the rows.
    if dice.chance(60)
        && let Some(column) = Some(dice.pick(&table.columns)).filter(|c| style.orders(c.ty))
    {
        let op = *dice.pick(&["=", "=", "<", ">"]);
        return format!(" WHERE {} {op} {}", column.name, column.ty.literal(dice));
    }
    let style = Style { nest: u32::from(dice.chance(15)), ..style };
    let relations = tables.iter().map(relation).collect();
    let predicate = Queries::new(dice, style, relations).predicate(&Scope::alone(&cols), 2);
    format!(" WHERE {predicate}")
}

fn insert(dice: &mut Dice, table: &Table) -> Write {
    let n = 1 + dice.weighted(&[30, 20, 15, 10, 10, 5, 5, 5]);
    let mut rows: Vec<String> = Vec::new();
    for _ in 0..n {
        // Now and then a row comes twice.
        if !rows.is_empty() && table.key == 0 && dice.chance(15) {
            rows.push(rows[rows.len() - 1].clone());
            continue;
        }
        let cells = table.columns.iter().map(|c| match !c.not_null && dice.chance(18) {
            true => "NULL".to_string(),
            false => c.ty.value(dice),
        });
        let cells: Vec<String> = cells.collect();
        rows.push(format!("({})", cells.join(", ")));
    }
    let keys = table.key_names().join(", ");
    let values = &table.columns[table.key..];
    let tail = match table.key {
        0 => String::new(),
        _ if dice.chance(45) || values.is_empty() => " ON CONFLICT DO NOTHING".to_string(),
        _ if dice.chance(90) => {
            let set: Vec<String> = values.iter().map(|c| format!("{0} = EXCLUDED.{0}", c.name)).collect();
            format!(" ON CONFLICT ({keys}) DO UPDATE SET {}", set.join(", "))
        }
        _ => String::new(),
    };
    if tail.contains("DO UPDATE") {
        // No key twice in one statement.
        rows.truncate(1);
    }
    Write { head: format!("INSERT INTO {} VALUES ", table.name), rows, tail }
}

/// About so many rows, made by a series; most of them in few groups.
fn many(dice: &mut Dice, table: &Table, rows: usize) -> Write {
    let start = dice.below(2_000);
    let cells = table.columns.iter().enumerate().map(|(i, c)| {
        let few = *dice.pick(&[2, 7, 40, 1000]);
        match c.ty {
            ty if i < table.key => match ty {
                Ty::Int4 | Ty::Int8 => "g".to_string(),
                Ty::Text => "g::text".to_string(),
                Ty::Date => "DATE '2000-01-01' + g".to_string(),
                _ => "lpad(g::text, 32, '0')::uuid".to_string(),
            },
            Ty::Int2 | Ty::Int4 | Ty::Int8 => format!("(g % {few})::{}", c.ty.sql()),
            Ty::Numeric => format!("(g % {few})::numeric(12,2) + 0.25"),
            Ty::Float8 => format!("(g % {few})::float8 / 4"),
            Ty::Text => format!("'t' || (g % {few})::text"),
            Ty::Bool => "g % 3 = 0".to_string(),
            Ty::Date => format!("DATE '2024-01-01' + g % {few}"),
            ty => ty.literal(dice),
        }
    });
    let cells: Vec<String> = cells.collect();
    let tail = if table.key == 0 { "" } else { " ON CONFLICT DO NOTHING" };
    Write::plain(format!(
        "INSERT INTO {} SELECT {} FROM generate_series({start}, {}) AS s (g){tail}",
        table.name,
        cells.join(", "),
        start + rows
    ))
}
