//! Changes of a table that amount to nothing in the end: rows are updated, deleted, and inserted again in other ticks.

use std::collections::BTreeMap;

use crate::common::pgclient::{PgClient, Protocol};

/// The tables of a file that noise can be made on, each with a shadow table of the same columns.
#[derive(Default)]
pub struct Tables {
    by_name: BTreeMap<String, Shadowed>,
}

struct Shadowed {
    shadow: String,
    /// A column that may be NULL, if there is one.
    nullable: Option<String>,
}

impl Tables {
    /// Follows CREATE TABLE and DROP TABLE.
    pub fn note_ddl(&mut self, sql: &str, admin: &mut PgClient) -> Result<(), String> {
        let words: Vec<&str> = sql.split(|c: char| c.is_whitespace() || c == '(' || c == ';').collect();
        let upper: Vec<String> = words.iter().take(3).map(|w| w.to_uppercase()).collect();
        match upper.iter().map(String::as_str).collect::<Vec<_>>()[..] {
            ["DROP", "TABLE", ..] => {
                for (_, table) in std::mem::take(&mut self.by_name) {
                    let drop = format!("DROP TABLE IF EXISTS {}", table.shadow);
                    admin.run(Protocol::Simple, &drop).map_err(|e| e.to_string())?;
                }
            }
            // A quoted name may hold blanks, a query's columns have no types here, and of an append-only table nothing
            // goes: such a table gets no noise.
            ["CREATE", "TABLE", third]
                if third != "IF"
                    && !third.starts_with('"')
                    && !words
                        .iter()
                        .any(|w| w.eq_ignore_ascii_case("as") || w.eq_ignore_ascii_case("append")) =>
            {
                let name = words[2];
                let Some(open) = sql.find('(') else { return Ok(()) };
                let Some(close) = sql.rfind(')') else { return Ok(()) };
                let shadow = format!("public.slt_shadow_{}", self.by_name.len());
                let create = format!("CREATE TABLE {shadow} {}", &sql[open..=close]);
                admin.run(Protocol::Simple, &create).map_err(|e| format!("{e}\nin: {create}"))?;
                let nullable = nullable_column(&sql[open + 1..close]);
                self.by_name.insert(name.to_lowercase(), Shadowed { shadow, nullable });
            }
            _ => {}
        }
        Ok(())
    }

    /// The statements to run after `sql`, if it has put rows into a shadowed table.
    pub fn noise(&self, sql: &str) -> Vec<String> {
        let words: Vec<&str> = sql.split(|c: char| c.is_whitespace() || c == '(').collect();
        let [insert, into, name, ..] = words[..] else { return Vec::new() };
        if !insert.eq_ignore_ascii_case("insert") || !into.eq_ignore_ascii_case("into") {
            return Vec::new();
        }
        let Some(Shadowed { shadow, nullable }) = self.by_name.get(&name.to_lowercase()) else {
            return Vec::new();
        };
        let mut steps = vec![format!("INSERT INTO {shadow} SELECT * FROM {name}")];
        if let Some(column) = nullable {
            steps.push(format!("UPDATE {name} SET {column} = NULL"));
        }
        steps.push(format!("DELETE FROM {name}"));
        match nullable {
            Some(column) => {
                steps.push(format!("INSERT INTO {name} SELECT * FROM {shadow} WHERE {column} IS NOT NULL"));
                steps.push(format!("INSERT INTO {name} SELECT * FROM {shadow} WHERE {column} IS NULL"));
            }
            None => steps.push(format!("INSERT INTO {name} SELECT * FROM {shadow}")),
        }
        steps.push(format!("DELETE FROM {shadow}"));
        steps.push(format!("BEGIN; DELETE FROM {name}; ROLLBACK"));
        steps
    }
}

/// The last column of a table's definition that is neither NOT NULL nor part of a key.
fn nullable_column(definition: &str) -> Option<String> {
    let mut parts = Vec::new();
    let (mut depth, mut start) = (0, 0);
    for (i, c) in definition.char_indices() {
        match c {
            '(' => depth += 1,
            ')' => depth -= 1,
            ',' if depth == 0 => {
                parts.push(&definition[start..i]);
                start = i + 1;
            }
            _ => {}
        }
    }
    parts.push(&definition[start..]);
    let constraint = |p: &str| {
        ["PRIMARY", "CONSTRAINT", "UNIQUE", "FOREIGN", "CHECK"]
            .iter()
            .any(|k| p.trim_start().to_uppercase().starts_with(k))
    };
    let keys: String = parts.iter().filter(|p| constraint(p)).map(|p| p.to_uppercase()).collect();
    parts.iter().rev().filter(|p| !constraint(p)).find_map(|p| {
        let upper = p.to_uppercase();
        let name = p.split_whitespace().next()?;
        let in_key = keys
            .split(|c: char| !(c.is_alphanumeric() || c == '_' || c == '"'))
            .any(|k| k == name.to_uppercase());
        (!upper.contains("NOT NULL") && !upper.contains("PRIMARY") && !in_key).then(|| name.to_string())
    })
}
