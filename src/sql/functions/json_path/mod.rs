//! SQL/JSON paths: `jsonb_path_query` and its kin, `@?` and `@@`.
//!
//! Steps, subscripts, filters, comparisons, arithmetic and the simple methods; lax and strict. What else the standard
//! has (regular expressions, date and time methods, variables) is refused.

mod parse;

use std::sync::Arc;

use arrow::array::ArrayRef;
use datafusion::logical_expr::ScalarUDF;

use super::define::{Arg, Call, Definition, Gives};
use super::jsonb::document;
use crate::error::{Error, Result, SqlState};
use crate::types::Document;

use Arg::Text;
use parse::{Bound, Node, Path, Step};

const fn function(
    name: &'static str,
    gives: Gives,
    evaluate: fn(&Call<'_>) -> Result<ArrayRef>,
) -> Definition {
    Definition { name, forms: &[&[Text, Text]], variadic: false, gives, evaluate }
}

const DEFINITIONS: [Definition; 7] = [
    function("jsonb_path_exists", Gives::Bool, |call| exists(call, false)),
    function("jsonb_path_match", Gives::Bool, |call| truth(call, false)),
    function("jsonb_path_exists_opr", Gives::Bool, |call| exists(call, true)),
    function("jsonb_path_match_opr", Gives::Bool, |call| truth(call, true)),
    function("jsonb_path_items", Gives::JsonbArray, |call| {
        let paths = call.text(1)?;
        call.text_lists(|row| {
            let Some(document) = document(call, 0, row)? else { return Ok(None) };
            let found = Path::parse(paths.value(row))?.query(&document)?;
            Ok(Some(found.iter().map(|d| Some(d.to_string())).collect()))
        })
    }),
    function("jsonb_path_query_array", Gives::Jsonb, |call| {
        let paths = call.text(1)?;
        call.texts(|row| {
            let Some(document) = document(call, 0, row)? else { return Ok(None) };
            let found = Path::parse(paths.value(row))?.query(&document)?;
            Ok(Some(Document::Array(found).to_string()))
        })
    }),
    function("jsonb_path_query_first", Gives::Jsonb, |call| {
        let paths = call.text(1)?;
        call.texts(|row| {
            let Some(document) = document(call, 0, row)? else { return Ok(None) };
            let found = Path::parse(paths.value(row))?.query(&document)?;
            Ok(found.first().map(ToString::to_string))
        })
    }),
];

/// The functions of this file.
pub(super) fn functions() -> Vec<Arc<ScalarUDF>> {
    DEFINITIONS.into_iter().map(Definition::udf).collect()
}

/// The operators answer NULL where the functions fail.
fn exists(call: &Call<'_>, quiet: bool) -> Result<ArrayRef> {
    let paths = call.text(1)?;
    call.bools(|row| {
        let Some(document) = document(call, 0, row)? else { return Ok(None) };
        match Path::parse(paths.value(row))?.query(&document) {
            Ok(found) => Ok(Some(!found.is_empty())),
            Err(_) if quiet => Ok(None),
            Err(e) => Err(e),
        }
    })
}

fn truth(call: &Call<'_>, quiet: bool) -> Result<ArrayRef> {
    let paths = call.text(1)?;
    call.bools(|row| {
        let Some(document) = document(call, 0, row)? else { return Ok(None) };
        match Path::parse(paths.value(row))?.query(&document) {
            Ok(found) => match found.as_slice() {
                [Document::Bool(truth)] => Ok(Some(*truth)),
                [Document::Null] => Ok(None),
                _ if quiet => Ok(None),
                _ => Err(Error::new(SqlState("22038"), "single boolean result is expected")),
            },
            Err(_) if quiet => Ok(None),
            Err(e) => Err(e),
        }
    })
}

impl Path {
    fn query(&self, root: &Document) -> Result<Vec<Document>> {
        Evaluation { root, strict: self.strict }.values(&self.expr, root)
    }
}

struct Evaluation<'a> {
    root: &'a Document,
    strict: bool,
}

impl Evaluation<'_> {
    fn values(&self, node: &Node, current: &Document) -> Result<Vec<Document>> {
        Ok(match node {
            Node::Root => vec![self.root.clone()],
            Node::Current => vec![current.clone()],
            Node::Literal(value) => vec![value.clone()],
            Node::Steps(start, steps) => {
                let mut values = self.values(start, current)?;
                for step in steps {
                    let mut next = Vec::new();
                    for value in values {
                        self.step(step, value, &mut next)?;
                    }
                    values = next;
                }
                values
            }
            Node::Arithmetic(operator, left, right) => {
                let (left, right) = (self.number(left, current)?, self.number(right, current)?);
                vec![compute(*operator, left, right)?]
            }
            Node::Negative(inner) => vec![number_text(-self.number(inner, current)?)?],
            predicate => vec![match self.test(predicate, current) {
                Some(truth) => Document::Bool(truth),
                None => Document::Null,
            }],
        })
    }

    /// The one number that an operand must be.
    fn number(&self, node: &Node, current: &Document) -> Result<f64> {
        match self.unwrapped(self.values(node, current)?).as_slice() {
            [Document::Number(digits)] => digits.parse().map_err(|_| not_numeric()),
            _ => Err(not_numeric()),
        }
    }

    /// Lax paths look into arrays.
    fn unwrapped(&self, values: Vec<Document>) -> Vec<Document> {
        if self.strict {
            return values;
        }
        let mut all = Vec::with_capacity(values.len());
        for value in values {
            match value {
                Document::Array(elements) => all.extend(elements),
                other => all.push(other),
            }
        }
        all
    }

    fn step(&self, step: &Step, value: Document, out: &mut Vec<Document>) -> Result<()> {
        let missing = |what: String| Err(Error::new(SqlState("2203A"), what));
        match (step, value) {
            (Step::Member(_) | Step::AnyMember | Step::Filter(_), Document::Array(elements))
                if !self.strict =>
            {
                // Only one level: arrays within arrays have no members.
                for element in elements {
                    match (step, element) {
                        (Step::Filter(_), element) => self.keep(step, element, out),
                        (_, Document::Array(_)) => {}
                        (_, element) => self.step(step, element, out)?,
                    }
                }
            }
            (Step::Member(name), Document::Object(mut members)) => {
                match members.remove(&(name.len(), name.clone())) {
                    Some(member) => out.push(member),
                    None if self.strict => {
                        return missing(format!("JSON object does not contain key \"{name}\""));
                    }
                    None => {}
                }
            }
            (Step::AnyMember, Document::Object(members)) => out.extend(members.into_values()),
            (Step::Member(_) | Step::AnyMember, _) if self.strict => {
                return missing("jsonpath member accessor can only be applied to an object".to_string());
            }
            (Step::Member(_) | Step::AnyMember, _) => {}
            (Step::Filter(_), value) => self.keep(step, value, out),
            (Step::AnyElement, Document::Array(elements)) => out.extend(elements),
            (Step::Elements(bounds), value) => {
                let elements = match value {
                    Document::Array(elements) => elements,
                    _ if self.strict => {
                        return missing(
                            "jsonpath array accessor can only be applied to an array".to_string(),
                        );
                    }
                    other => vec![other],
                };
                let length = elements.len() as i64;
                let at = |b: &Bound| if b.from_last { length - 1 + b.offset } else { b.offset };
                for (from, to) in bounds {
                    let from = at(from);
                    let to = to.as_ref().map_or(from, at);
                    if self.strict && (from < 0 || to >= length || from > to) {
                        return Err(Error::new(
                            SqlState("22033"),
                            "jsonpath array subscript is out of bounds",
                        ));
                    }
                    for index in from.max(0)..=to.min(length - 1) {
                        // Within the array by the line above.
                        out.extend(elements.get(index as usize).cloned());
                    }
                }
            }
            (Step::AnyElement, _) if self.strict => {
                return missing(
                    "jsonpath wildcard array accessor can only be applied to an array".to_string(),
                );
            }
            (Step::AnyElement, other) => out.push(other),
            (Step::Method(method), value) => self.method(method, value, out)?,
        }
        Ok(())
    }

    fn keep(&self, filter: &Step, value: Document, out: &mut Vec<Document>) {
        if let Step::Filter(condition) = filter
            && self.test(condition, &value) == Some(true)
        {
            out.push(value);
        }
    }

    fn method(&self, method: &str, value: Document, out: &mut Vec<Document>) -> Result<()> {
        match (method, value) {
            ("type", value) => out.push(Document::String(value.type_name().to_string())),
            ("size", Document::Array(elements)) => out.push(Document::Number(elements.len().to_string())),
            ("size", _) if self.strict => {
                return Err(Error::new(
                    SqlState("22039"),
                    "jsonpath item method .size() can only be applied to an array",
                ));
            }
            ("size", _) => out.push(Document::Number("1".to_string())),
            (_, Document::Array(elements)) if !self.strict => {
                for element in elements {
                    self.method(method, element, out)?;
                }
            }
            (_, value) => {
                let refused = || {
                    Error::new(
                        SqlState("22036"),
                        format!("jsonpath item method .{method}() can only be applied to a numeric value"),
                    )
                };
                let number: f64 = match &value {
                    Document::Number(digits) => digits.parse().map_err(|_| refused())?,
                    Document::String(text) if method == "double" => text.parse().map_err(|_| refused())?,
                    _ => return Err(refused()),
                };
                out.push(number_text(match method {
                    "abs" => number.abs(),
                    "floor" => number.floor(),
                    "ceiling" => number.ceil(),
                    _ => number,
                })?);
            }
        }
        Ok(())
    }

    /// A condition; `None`: unknown.
    fn test(&self, node: &Node, current: &Document) -> Option<bool> {
        match node {
            Node::And(a, b) => match (self.test(a, current), self.test(b, current)) {
                (Some(false), _) | (_, Some(false)) => Some(false),
                (Some(true), Some(true)) => Some(true),
                _ => None,
            },
            Node::Or(a, b) => match (self.test(a, current), self.test(b, current)) {
                (Some(true), _) | (_, Some(true)) => Some(true),
                (Some(false), Some(false)) => Some(false),
                _ => None,
            },
            Node::Not(inner) => self.test(inner, current).map(|truth| !truth),
            Node::IsUnknown(inner) => Some(self.test(inner, current).is_none()),
            Node::Exists(inner) => self.values(inner, current).ok().map(|found| !found.is_empty()),
            Node::Compare(operator, left, right) => {
                self.any(left, right, current, |a, b| compare(operator, a, b))
            }
            Node::StartsWith(text, prefix) => self.any(text, prefix, current, |a, b| match (a, b) {
                (Document::String(text), Document::String(prefix)) => Some(text.starts_with(prefix.as_str())),
                _ => None,
            }),
            other => match self.values(other, current).ok()?.as_slice() {
                [Document::Bool(truth)] => Some(*truth),
                _ => None,
            },
        }
    }

    /// Whether some pair passes; unknown if none does and some could not be tested.
    fn any(
        &self,
        left: &Node,
        right: &Node,
        current: &Document,
        test: impl Fn(&Document, &Document) -> Option<bool>,
    ) -> Option<bool> {
        let left = self.unwrapped(self.values(left, current).ok()?);
        let right = self.unwrapped(self.values(right, current).ok()?);
        let mut answer = Some(false);
        for a in &left {
            for b in &right {
                match test(a, b) {
                    Some(true) => return Some(true),
                    Some(false) => {}
                    None => answer = None,
                }
            }
        }
        answer
    }
}

fn compare(operator: &str, a: &Document, b: &Document) -> Option<bool> {
    use std::cmp::Ordering::{Equal, Greater, Less};
    let composite = |d: &Document| matches!(d, Document::Array(_) | Document::Object(_));
    if composite(a) || composite(b) {
        return None;
    }
    if (*a == Document::Null) != (*b == Document::Null) {
        // Null is equal to nothing else, and comparable to everything.
        return Some(operator == "<>");
    }
    let order = a.compare_scalar(b)?;
    Some(match operator {
        "=" => order == Equal,
        "<>" => order != Equal,
        "<" => order == Less,
        "<=" => order != Greater,
        ">" => order == Greater,
        _ => order != Less,
    })
}

fn not_numeric() -> Error {
    Error::new(SqlState("22038"), "operand of jsonpath operator is not a single numeric value")
}

fn compute(operator: char, left: f64, right: f64) -> Result<Document> {
    if matches!(operator, '/' | '%') && right == 0.0 {
        return Err(Error::new(SqlState::DIVISION_BY_ZERO, "division by zero"));
    }
    number_text(match operator {
        '+' => left + right,
        '-' => left - right,
        '*' => left * right,
        '/' => left / right,
        _ => left % right,
    })
}

fn number_text(value: f64) -> Result<Document> {
    if value.is_finite() {
        return Ok(Document::Number(value.to_string()));
    }
    Err(Error::new(SqlState::NUMERIC_VALUE_OUT_OF_RANGE, "value out of range: overflow"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(path: &str, json: &str) -> String {
        let found = Path::parse(path).unwrap().query(&Document::parse(json).unwrap()).unwrap();
        Document::Array(found).to_string()
    }

    #[test]
    fn steps_lead_into_documents() {
        let json = r#"{"a": [1, 2, {"b": "x"}], "c d": null}"#;
        assert_eq!(found("$.a[0]", json), "[1]");
        assert_eq!(found("$.a[last]", json), r#"[{"b": "x"}]"#);
        assert_eq!(found("$.a[0 to 1]", json), "[1, 2]");
        assert_eq!(found("$.a.b", json), r#"["x"]"#);
        assert_eq!(found("$.\"c d\"", json), "[null]");
        assert_eq!(found("$.a[*] ? (@ > 1)", json), "[2]");
        assert_eq!(found("$.a.size()", json), "[3]");
        assert_eq!(found("$.a[0] + 2 * 3", json), "[7]");
        assert_eq!(found("exists($.zz) || $.a[1] == 2", json), "[true]");
        assert!(Path::parse("$.").is_err());
        assert!(Path::parse("$ ? (@ > )").is_err());
        assert!(Path::parse(&"(".repeat(1000)).is_err());
        assert_eq!(Path::parse("$x").unwrap_err().sqlstate.0, "0A000");
    }
}
