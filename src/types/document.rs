//! A JSON document as a tree, its numbers with the digits that they were written with.

use std::cmp::Ordering;
use std::collections::BTreeMap;

use super::json;
use crate::error::Result;

/// The name of a member; objects are in the order of their names' lengths, then bytes.
type Key = (usize, String);

/// A JSON value.
#[derive(Clone, Debug, PartialEq)]
pub enum Document {
    /// `null`
    Null,
    /// `true` or `false`
    Bool(bool),
    /// A number, as it is written.
    Number(String),
    /// A string, without quotes and escapes.
    String(String),
    /// An array.
    Array(Vec<Document>),
    /// An object.
    Object(BTreeMap<Key, Document>),
}

impl Document {
    /// Reads JSON text.
    ///
    /// # Errors
    /// 22P02 when it is none.
    pub fn parse(text: &str) -> Result<Document> {
        Ok(Document::of(&json::normalize(text)?))
    }

    /// Reads text that is known to be JSON.
    pub fn of(text: &str) -> Document {
        let text = text.trim();
        match text.as_bytes().first() {
            Some(b'{') => {
                let mut members = BTreeMap::new();
                json::each_member(text, |key, value| {
                    let name = json::unquoted(key).unwrap_or_default();
                    members.insert((name.len(), name), Document::of(value));
                    None::<()>
                });
                Document::Object(members)
            }
            Some(b'[') => {
                let mut elements = Vec::new();
                json::each_element(text, |element| {
                    elements.push(Document::of(element));
                    None::<()>
                });
                Document::Array(elements)
            }
            Some(b'"') => Document::String(json::unquoted(text).unwrap_or_default()),
            Some(b't') => Document::Bool(true),
            Some(b'f') => Document::Bool(false),
            Some(b'n') | None => Document::Null,
            Some(_) => Document::Number(text.to_string()),
        }
    }

    /// A member's value.
    pub fn member(&self, name: &str) -> Option<&Document> {
        match self {
            Document::Object(members) => members.get(&(name.len(), name.to_string())),
            _ => None,
        }
    }

    /// Puts a member into an object; nothing else has any.
    pub fn insert(&mut self, name: &str, value: Document) {
        if let Document::Object(members) = self {
            members.insert((name.len(), name.to_string()), value);
        }
    }

    /// Takes a member out of an object.
    pub fn remove(&mut self, name: &str) -> Option<Document> {
        match self {
            Document::Object(members) => members.remove(&(name.len(), name.to_string())),
            _ => None,
        }
    }

    /// The members of an object, in their order.
    pub fn members(&self) -> impl Iterator<Item = (&str, &Document)> {
        let members = match self {
            Document::Object(members) => Some(members),
            _ => None,
        };
        members.into_iter().flatten().map(|((_, name), value)| (name.as_str(), value))
    }

    /// As `->>` shows it: strings without quotes; `None` for null.
    pub fn text(&self) -> Option<String> {
        match self {
            Document::Null => None,
            Document::String(text) => Some(text.clone()),
            other => Some(other.to_string()),
        }
    }

    /// `object`, `array`, `string`, `number`, `boolean`, `null`.
    pub fn type_name(&self) -> &'static str {
        match self {
            Document::Null => "null",
            Document::Bool(_) => "boolean",
            Document::Number(_) => "number",
            Document::String(_) => "string",
            Document::Array(_) => "array",
            Document::Object(_) => "object",
        }
    }

    /// Without the members that are null, at every depth; elements of arrays stay.
    #[must_use]
    pub fn without_nulls(self) -> Document {
        match self {
            Document::Object(members) => Document::Object(
                members
                    .into_iter()
                    .filter(|(_, value)| *value != Document::Null)
                    .map(|(key, value)| (key, value.without_nulls()))
                    .collect(),
            ),
            Document::Array(elements) => {
                Document::Array(elements.into_iter().map(Document::without_nulls).collect())
            }
            other => other,
        }
    }

    /// On several lines, four blanks further in at each depth.
    pub fn pretty(&self) -> String {
        let mut out = String::new();
        self.write_pretty(0, &mut out);
        out
    }

    fn write_pretty(&self, depth: usize, out: &mut String) {
        let line = |depth: usize, out: &mut String| {
            out.push('\n');
            out.extend(std::iter::repeat_n(' ', depth * 4));
        };
        match self {
            Document::Object(members) => {
                out.push('{');
                for (i, ((_, name), value)) in members.iter().enumerate() {
                    if i > 0 {
                        out.push(',');
                    }
                    line(depth + 1, out);
                    write_string(name, out);
                    out.push_str(": ");
                    value.write_pretty(depth + 1, out);
                }
                line(depth, out);
                out.push('}');
            }
            Document::Array(elements) => {
                out.push('[');
                for (i, value) in elements.iter().enumerate() {
                    if i > 0 {
                        out.push(',');
                    }
                    line(depth + 1, out);
                    value.write_pretty(depth + 1, out);
                }
                line(depth, out);
                out.push(']');
            }
            other => other.write(", ", ": ", out),
        }
    }

    /// On one line without blanks, as functions of `json` write it.
    pub fn compact(&self) -> String {
        let mut out = String::new();
        self.write(",", ":", &mut out);
        out
    }

    fn write(&self, comma: &str, colon: &str, out: &mut String) {
        match self {
            Document::Null => out.push_str("null"),
            Document::Bool(value) => out.push_str(if *value { "true" } else { "false" }),
            Document::Number(digits) => out.push_str(digits),
            Document::String(text) => write_string(text, out),
            Document::Array(elements) => {
                out.push('[');
                for (i, element) in elements.iter().enumerate() {
                    if i > 0 {
                        out.push_str(comma);
                    }
                    element.write(comma, colon, out);
                }
                out.push(']');
            }
            Document::Object(members) => {
                out.push('{');
                for (i, ((_, name), value)) in members.iter().enumerate() {
                    if i > 0 {
                        out.push_str(comma);
                    }
                    write_string(name, out);
                    out.push_str(colon);
                    value.write(comma, colon, out);
                }
                out.push('}');
            }
        }
    }

    /// Compares two scalars of one type, as path expressions do; `None` for what cannot be compared.
    pub fn compare_scalar(&self, other: &Document) -> Option<Ordering> {
        match (self, other) {
            (Document::Null, Document::Null) => Some(Ordering::Equal),
            (Document::Bool(a), Document::Bool(b)) => Some(a.cmp(b)),
            (Document::String(a), Document::String(b)) => Some(a.cmp(b)),
            (Document::Number(a), Document::Number(b)) => {
                if a == b {
                    return Some(Ordering::Equal);
                }
                a.parse::<f64>().ok()?.partial_cmp(&b.parse::<f64>().ok()?)
            }
            _ => None,
        }
    }
}

impl std::fmt::Display for Document {
    /// In jsonb's one form.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut out = String::new();
        self.write(", ", ": ", &mut out);
        f.write_str(&out)
    }
}

fn write_string(text: &str, out: &mut String) {
    out.push_str(&serde_json::Value::String(text.to_string()).to_string());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn documents_keep_their_digits() {
        let text = r#"{"a": [1.50, null, {"b": "x\"y"}], "bb": true}"#;
        let document = Document::parse(text).unwrap();
        assert_eq!(document.to_string(), text);
        assert_eq!(document.compact(), text.replace(' ', ""));
        assert_eq!(document.member("bb"), Some(&Document::Bool(true)));
        assert_eq!(Document::parse("[{}]").unwrap().pretty(), "[\n    {\n    }\n]");
        assert!(Document::parse("{a}").is_err());
    }

    #[test]
    fn nulls_go_from_objects_only() {
        let document = Document::parse(r#"{"a": null, "b": [null, {"c": null}]}"#).unwrap();
        assert_eq!(document.without_nulls().to_string(), r#"{"b": [null, {}]}"#);
    }
}
