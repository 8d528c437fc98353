//! Names of things: how an identifier is folded, written back, and taken apart into schema and name.

use std::fmt;

use datafusion::sql::sqlparser::ast::{Ident, ObjectName};
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result, SqlState};

/// The schema of everything a user creates.
pub const PUBLIC: &str = "public";

/// Schemas whose relations the database provides; nothing can be created in them.
pub const SYSTEM_SCHEMAS: [&str; 3] = ["tidemill", "pg_catalog", "information_schema"];

/// The name of an object as a statement gave it, folded: `orders`, `public.orders`, `shop.public.orders`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Name {
    /// The database, when one was written.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub database: Option<String>,
    /// The schema, when one was written.
    pub schema: Option<String>,
    /// The name inside its schema.
    pub name: String,
}

impl Name {
    /// A name without a schema.
    pub fn bare(name: impl Into<String>) -> Self {
        Name { database: None, schema: None, name: name.into() }
    }

    /// A name in a schema.
    pub fn qualified(schema: impl Into<String>, name: impl Into<String>) -> Self {
        Name { database: None, schema: Some(schema.into()), name: name.into() }
    }

    /// Takes a parsed name apart. A leading database name is allowed when two more parts follow, as in PostgreSQL.
    ///
    /// # Errors
    /// 42601 when it has more than three parts, or parts that are not identifiers.
    pub fn from_object_name(name: &ObjectName) -> Result<Self> {
        let mut parts = Vec::with_capacity(name.0.len());
        for part in &name.0 {
            match part.as_ident() {
                Some(ident) => parts.push(fold(ident)),
                None => return Err(Error::new(SqlState::SYNTAX_ERROR, format!("invalid name: {name}"))),
            }
        }
        match parts.len() {
            1..=3 => {
                let last = parts.pop().unwrap_or_default();
                let schema = parts.pop();
                Ok(Name { database: parts.pop(), schema, name: last })
            }
            _ => Err(Error::new(
                SqlState::SYNTAX_ERROR,
                format!("improper qualified name (too many dotted names): {name}"),
            )),
        }
    }
}

impl fmt::Display for Name {
    /// As SQL: quoted where needed.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for part in [&self.database, &self.schema].into_iter().flatten() {
            write!(f, "{}.", quote(part))?;
        }
        f.write_str(&quote(&self.name))
    }
}

impl Name {
    /// As PostgreSQL's messages show it: never quoted.
    pub fn shown(&self) -> String {
        let parts = [self.database.as_deref(), self.schema.as_deref(), Some(&self.name)];
        parts.into_iter().flatten().collect::<Vec<_>>().join(".")
    }
}

/// What an identifier means: lower case unless it was quoted.
pub fn fold(ident: &Ident) -> String {
    match ident.quote_style {
        Some(_) => ident.value.clone(),
        None => fold_str(&ident.value),
    }
}

/// An unquoted word, folded as PostgreSQL folds it: ASCII letters only.
pub fn fold_str(word: &str) -> String {
    word.to_ascii_lowercase()
}

/// An identifier as SQL: quoted when it is not a plain lower-case word, or is a reserved one.
pub fn quote(name: &str) -> String {
    if is_plain(name) { name.to_string() } else { format!("\"{}\"", name.replace('"', "\"\"")) }
}

/// Splits the name of another system's table at its dots, at most three parts; `fold` is what that system makes of
/// parts without quotes. `None`: it is no name.
pub fn name_parts(name: &str, fold: impl Fn(&str) -> String) -> Option<Vec<String>> {
    let mut parts = Vec::new();
    let mut rest = name.trim();
    loop {
        let part;
        if let Some(inner) = rest.strip_prefix('"') {
            let (text, after) = inner.split_once('"')?;
            part = text.to_string();
            rest = after;
        } else {
            let end = rest.find('.').unwrap_or(rest.len());
            part = fold(&rest[..end]);
            rest = &rest[end..];
            if !part.chars().all(|c| c.is_alphanumeric() || "_$".contains(c)) {
                return None;
            }
        }
        if part.is_empty() {
            return None;
        }
        parts.push(part);
        match rest.strip_prefix('.') {
            Some(more) => rest = more,
            None if rest.is_empty() && parts.len() <= 3 => return Some(parts),
            None => return None,
        }
    }
}

/// The identifiers of a list with commas, as `search_path` is written, folded; `None`: it is no such list.
pub fn identifier_list(text: &str) -> Option<Vec<String>> {
    let mut names = Vec::new();
    let mut rest = text.trim_start();
    if rest.is_empty() {
        return Some(names);
    }
    loop {
        if let Some(mut inner) = rest.strip_prefix('"') {
            let mut name = String::new();
            loop {
                let (part, after) = inner.split_once('"')?;
                name.push_str(part);
                match after.strip_prefix('"') {
                    Some(more) => {
                        name.push('"');
                        inner = more;
                    }
                    None => {
                        rest = after;
                        break;
                    }
                }
            }
            names.push(name);
        } else {
            let end = rest.find(|c: char| c == ',' || c.is_whitespace()).unwrap_or(rest.len());
            if end == 0 {
                return None;
            }
            names.push(fold_str(&rest[..end]));
            rest = &rest[end..];
        }
        rest = rest.trim_start();
        match rest.strip_prefix(',') {
            Some(more) => rest = more.trim_start(),
            None if rest.is_empty() => return Some(names),
            None => return None,
        }
    }
}

/// A string literal as SQL.
pub fn quote_literal(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

fn is_plain(name: &str) -> bool {
    let mut chars = name.chars();
    chars.next().is_some_and(|c| c.is_ascii_lowercase() || c == '_')
        && chars.all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_' || c == '$')
        && RESERVED.binary_search(&name).is_err()
}

/// Whether a word may not be a relation's or column's name without quotes.
pub fn is_reserved(word: &str) -> bool {
    RESERVED.binary_search(&word).is_ok()
}

/// PostgreSQL's reserved words (those that may not be a column's name), sorted.
const RESERVED: [&str; 100] = [
    "all",
    "analyse",
    "analyze",
    "and",
    "any",
    "array",
    "as",
    "asc",
    "asymmetric",
    "authorization",
    "binary",
    "both",
    "case",
    "cast",
    "check",
    "collate",
    "collation",
    "column",
    "concurrently",
    "constraint",
    "create",
    "cross",
    "current_catalog",
    "current_date",
    "current_role",
    "current_schema",
    "current_time",
    "current_timestamp",
    "current_user",
    "default",
    "deferrable",
    "desc",
    "distinct",
    "do",
    "else",
    "end",
    "except",
    "false",
    "fetch",
    "for",
    "foreign",
    "freeze",
    "from",
    "full",
    "grant",
    "group",
    "having",
    "ilike",
    "in",
    "initially",
    "inner",
    "intersect",
    "into",
    "is",
    "isnull",
    "join",
    "lateral",
    "leading",
    "left",
    "like",
    "limit",
    "localtime",
    "localtimestamp",
    "natural",
    "not",
    "notnull",
    "null",
    "offset",
    "on",
    "only",
    "or",
    "order",
    "outer",
    "overlaps",
    "placing",
    "primary",
    "references",
    "returning",
    "right",
    "select",
    "session_user",
    "similar",
    "some",
    "symmetric",
    "table",
    "tablesample",
    "then",
    "to",
    "trailing",
    "true",
    "union",
    "unique",
    "user",
    "using",
    "variadic",
    "verbose",
    "when",
    "where",
    "window",
    "with",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reserved_words_are_sorted_for_the_search() {
        assert!(RESERVED.is_sorted());
        assert!(is_reserved("select") && !is_reserved("orders"));
    }

    #[test]
    fn lists_of_identifiers_are_taken_apart() {
        let list = |text: &str| identifier_list(text);
        let names = |names: &[&str]| Some(names.iter().map(ToString::to_string).collect::<Vec<_>>());
        assert_eq!(list(" \"$user\", Public "), names(&["$user", "public"]));
        assert_eq!(list("\"a, \"\"b\", c"), names(&["a, \"b", "c"]));
        assert_eq!((list(""), list("\"\"")), (names(&[]), names(&[""])));
        for wrong in ["a,", "a b", ",a", "\"a"] {
            assert_eq!(list(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn quoting_is_undone_by_folding() {
        assert_eq!(quote("orders"), "orders");
        assert_eq!(quote("Orders"), "\"Orders\"");
        assert_eq!(quote("a\"b"), "\"a\"\"b\"");
        assert_eq!(quote("order"), "\"order\"");
        assert_eq!(quote("1st"), "\"1st\"");
        assert_eq!(fold(&Ident::new("OrDers")), "orders");
        assert_eq!(fold(&Ident::with_quote('"', "OrDers")), "OrDers");
    }
}
