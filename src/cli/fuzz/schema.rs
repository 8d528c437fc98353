//! Random tables.

use super::dice::Dice;
use super::types::Ty;

/// A table's column.
#[derive(Clone, Debug)]
pub struct Column {
    pub name: String,
    pub ty: Ty,
    pub not_null: bool,
}

/// A table.
#[derive(Clone, Debug)]
pub struct Table {
    pub name: String,
    pub columns: Vec<Column>,
    /// How many of the first columns are the primary key; 0: it has none.
    pub key: usize,
    /// The column that a watermark follows, and how far behind.
    pub delay: Option<(usize, &'static str)>,
}

impl Table {
    /// A table of that name.
    pub fn random(name: &str, dice: &mut Dice) -> Table {
        let key = dice.weighted(&[35, 50, 15]);
        let width = key + 1 + dice.below(5);
        let columns = (0..width).map(|i| {
            let ty = if i < key { *dice.pick(&Ty::KEYS) } else { *dice.pick(&Ty::COLUMNS) };
            // The same names in all tables: USING and wrong look-ups of names show.
            let name =
                if i < key { format!("k{}", i + 1) } else { char::from(b'a' + (i - key) as u8).into() };
            Column { name, ty, not_null: i < key || dice.chance(15) }
        });
        Table { name: name.to_string(), columns: columns.collect(), key, delay: None }
    }

    /// The statement that makes it.
    pub fn create(&self) -> String {
        let mut parts: Vec<String> = self
            .columns
            .iter()
            .enumerate()
            .map(|(i, c)| {
                let not_null = if c.not_null && i >= self.key { " NOT NULL" } else { "" };
                format!("{} {}{not_null}", c.name, c.ty.sql())
            })
            .collect();
        if self.key > 0 {
            parts.push(format!("PRIMARY KEY ({})", self.key_names().join(", ")));
        }
        if let Some((column, delay)) = self.delay {
            let at = &self.columns[column].name;
            parts.push(format!("WATERMARK FOR {at} AS {at} - INTERVAL '{delay}'"));
        }
        format!("CREATE TABLE {} ({})", self.name, parts.join(", "))
    }

    /// Names of the key's columns.
    pub fn key_names(&self) -> Vec<&str> {
        self.columns[..self.key].iter().map(|c| c.name.as_str()).collect()
    }
}
