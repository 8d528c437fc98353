//! What a query can name where it stands: columns with their types, around them the outer queries' columns.

use super::dice::Dice;
use super::types::Ty;

/// An expression that stands for a column: its name, or in a grouped query a key or an aggregate.
#[derive(Clone, Debug)]
pub struct Col {
    /// How it is written.
    pub sql: String,
    pub ty: Ty,
    /// Whether it is a plain column, which subqueries may refer to.
    pub plain: bool,
}

impl Col {
    /// A plain column.
    pub fn plain(sql: String, ty: Ty) -> Col {
        Col { sql, ty, plain: true }
    }

    /// An expression.
    pub fn computed(sql: String, ty: Ty) -> Col {
        Col { sql, ty, plain: false }
    }
}

/// The columns of a query, and of those around it.
#[derive(Clone, Copy)]
pub struct Scope<'a> {
    pub cols: &'a [Col],
    pub outer: Option<&'a Scope<'a>>,
}

impl<'a> Scope<'a> {
    /// Columns with nothing around them.
    pub fn alone(cols: &'a [Col]) -> Scope<'a> {
        Scope { cols, outer: None }
    }

    /// A column of that type; now and then one of the outer queries.
    pub fn column(&self, ty: Ty, dice: &mut Dice) -> Option<String> {
        let own: Vec<&Col> = self.cols.iter().filter(|c| c.ty == ty).collect();
        if let Some(outer) = self.outer
            && (own.is_empty() || dice.chance(30))
            && let Some(found) = outer.plain_column(ty, dice)
        {
            return Some(found);
        }
        if own.is_empty() { None } else { Some(dice.pick(&own).sql.clone()) }
    }

    fn plain_column(&self, ty: Ty, dice: &mut Dice) -> Option<String> {
        let own: Vec<&Col> = self.cols.iter().filter(|c| c.plain && c.ty == ty).collect();
        match own.is_empty() {
            false => Some(dice.pick(&own).sql.clone()),
            true => self.outer?.plain_column(ty, dice),
        }
    }

    /// The type of some column, or of none.
    pub fn some_type(&self, dice: &mut Dice) -> Ty {
        match self.cols.is_empty() || dice.chance(5) {
            true => *dice.pick(&Ty::COLUMNS),
            false => dice.pick(self.cols).ty,
        }
    }
}
