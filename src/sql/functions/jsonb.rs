//! Functions that change `jsonb` documents, and that take them apart into arrays (whose elements become rows).

use std::sync::Arc;

use arrow::array::{Array, ArrayRef};
use datafusion::logical_expr::ScalarUDF;

use super::define::{Arg, Call, Definition, Gives};
use crate::error::{Error, Result, SqlState};
use crate::types::{Document, SqlType};

use Arg::{Bool, Int4, Text, TextArray};

const fn jsonb(
    name: &'static str,
    forms: &'static [&'static [Arg]],
    evaluate: fn(&Call<'_>) -> Result<ArrayRef>,
) -> Definition {
    Definition { name, forms, variadic: false, gives: Gives::Jsonb, evaluate }
}

const fn list(name: &'static str, gives: Gives, evaluate: fn(&Call<'_>) -> Result<ArrayRef>) -> Definition {
    Definition { name, forms: &[&[Text]], variadic: false, gives, evaluate }
}

/// Functions of both types; those of `jsonb` come first and are found by name.
const DEFINITIONS: [Definition; 16] = [
    jsonb("jsonb_set", &[&[Text, TextArray, Text], &[Text, TextArray, Text, Bool]], set),
    jsonb("jsonb_insert", &[&[Text, TextArray, Text], &[Text, TextArray, Text, Bool]], insert),
    jsonb("jsonb_concat", &[&[Text, Text]], concat),
    jsonb("jsonb_delete", &[&[Text, Int4], &[Text, TextArray]], delete),
    jsonb("jsonb_delete_key", &[&[Text, Text]], delete_key),
    jsonb("jsonb_delete_path", &[&[Text, TextArray]], delete_path),
    jsonb("jsonb_strip_nulls", &[&[Text]], |call| {
        call.texts(|row| Ok(document(call, 0, row)?.map(|d| d.without_nulls().to_string())))
    }),
    Definition {
        name: "json_strip_nulls",
        forms: &[&[Text]],
        variadic: false,
        gives: Gives::Json,
        evaluate: |call| call.texts(|row| Ok(document(call, 0, row)?.map(|d| d.without_nulls().compact()))),
    },
    Definition {
        name: "jsonb_pretty",
        forms: &[&[Text]],
        variadic: false,
        gives: Gives::Text,
        evaluate: |call| call.texts(|row| Ok(document(call, 0, row)?.map(|d| d.pretty()))),
    },
    jsonb("jsonb_object", &[&[TextArray], &[TextArray, TextArray]], object),
    list("jsonb_elements", Gives::JsonbArray, |call| elements(call, |d| Some(d.to_string()))),
    list("jsonb_element_texts", Gives::TextArray, |call| elements(call, Document::text)),
    list("jsonb_keys", Gives::TextArray, |call| {
        members(call, "object_keys", |name, _| Some(name.to_string()))
    }),
    list("jsonb_each_keys", Gives::TextArray, |call| members(call, "each", |name, _| Some(name.to_string()))),
    list("jsonb_each_values", Gives::JsonbArray, |call| members(call, "each", |_, d| Some(d.to_string()))),
    list("jsonb_each_texts", Gives::TextArray, |call| members(call, "each_text", |_, d| d.text())),
];

/// The functions of this file.
pub(super) fn functions() -> Vec<Arc<ScalarUDF>> {
    DEFINITIONS.into_iter().map(Definition::udf).collect()
}

/// A document of a row; text that is no `jsonb` yet is read as one.
pub(super) fn document(call: &Call<'_>, argument: usize, row: usize) -> Result<Option<Document>> {
    let texts = call.text(argument)?;
    if texts.is_null(row) {
        return Ok(None);
    }
    let text = texts.value(row);
    match call.fields.get(argument).map(|f| SqlType::of(f)) {
        Some(SqlType::Jsonb) => Ok(Some(Document::of(text))),
        _ => Document::parse(text).map(Some),
    }
}

fn refused(message: impl Into<String>) -> Error {
    Error::new(SqlState::INVALID_PARAMETER_VALUE, message)
}

/// The steps of a path; none of them may be NULL.
fn path(call: &Call<'_>, argument: usize, row: usize) -> Result<Vec<String>> {
    let steps = super::define::texts_at(call.list(argument)?, row)?;
    steps
        .into_iter()
        .enumerate()
        .map(|(i, step)| {
            step.ok_or_else(|| {
                Error::new(SqlState("22004"), format!("path element at position {} is null", i + 1))
            })
        })
        .collect()
}

/// Where in an array a step leads: before the first element, to one, or behind the last one.
fn place(step: &str, depth: usize, length: usize) -> Result<Option<usize>> {
    let index: i64 = step.trim().parse().map_err(|_| {
        Error::new(
            SqlState::INVALID_TEXT_REPRESENTATION,
            format!("path element at position {} is not an integer: \"{step}\"", depth + 1),
        )
    })?;
    let length = i64::try_from(length).unwrap_or(i64::MAX);
    let from_start = if index < 0 { index.saturating_add(length) } else { index };
    Ok(usize::try_from(from_start).ok())
}

#[derive(Clone, Copy, PartialEq)]
enum Change {
    /// Put a value where one is; or, if asked, where none is.
    Set {
        create: bool,
    },
    /// Put a value before or behind an element, or where no member is.
    Insert {
        behind: bool,
    },
    Delete,
}

/// Changes what a path leads to.
fn change(
    target: &mut Document,
    steps: &[String],
    depth: usize,
    value: Option<&Document>,
    how: Change,
) -> Result<()> {
    let Some(step) = steps.get(depth) else { return Ok(()) };
    let last = depth + 1 == steps.len();
    match target {
        Document::Object(members) => {
            let key = (step.len(), step.clone());
            if !last {
                return match members.get_mut(&key) {
                    Some(inner) => change(inner, steps, depth + 1, value, how),
                    None => Ok(()),
                };
            }
            let there = members.contains_key(&key);
            match (how, value) {
                (Change::Delete, _) => {
                    members.remove(&key);
                }
                (Change::Insert { .. }, _) if there => {
                    return Err(refused("cannot replace existing key")
                        .with_hint("Try using the function jsonb_set to replace key value."));
                }
                (Change::Set { create: false }, _) if !there => {}
                (_, Some(value)) => {
                    members.insert(key, value.clone());
                }
                (_, None) => {}
            }
        }
        Document::Array(elements) => {
            let length = elements.len();
            let at = place(step, depth, length)?;
            let inside = at.filter(|at| *at < length);
            if !last {
                return match inside {
                    Some(at) => change(&mut elements[at], steps, depth + 1, value, how),
                    None => Ok(()),
                };
            }
            match (how, inside, value) {
                (Change::Delete, Some(at), _) => {
                    elements.remove(at);
                }
                (Change::Set { .. }, Some(at), Some(value)) => elements[at] = value.clone(),
                (Change::Insert { behind }, Some(at), Some(value)) => {
                    elements.insert(at + usize::from(behind), value.clone());
                }
                (Change::Set { create: true } | Change::Insert { .. }, None, Some(value)) => {
                    let at = if at.is_none() { 0 } else { length };
                    elements.insert(at, value.clone());
                }
                _ => {}
            }
        }
        _ => {}
    }
    Ok(())
}

fn changed(call: &Call<'_>, how: impl Fn(bool) -> Change, default: bool) -> Result<ArrayRef> {
    call.texts(|row| {
        let (Some(mut target), value) = (document(call, 0, row)?, document(call, 2, row)?) else {
            return Ok(None);
        };
        if !matches!(target, Document::Object(_) | Document::Array(_)) {
            return Err(refused("cannot set path in scalar"));
        }
        let flag = if call.arrays.len() > 3 { call.bool(3)?.value(row) } else { default };
        change(&mut target, &path(call, 1, row)?, 0, value.as_ref(), how(flag))?;
        Ok(Some(target.to_string()))
    })
}

fn set(call: &Call<'_>) -> Result<ArrayRef> {
    changed(call, |create| Change::Set { create }, true)
}

fn insert(call: &Call<'_>) -> Result<ArrayRef> {
    changed(call, |behind| Change::Insert { behind }, false)
}

fn delete_path(call: &Call<'_>) -> Result<ArrayRef> {
    call.texts(|row| {
        let Some(mut target) = document(call, 0, row)? else { return Ok(None) };
        if !matches!(target, Document::Object(_) | Document::Array(_)) {
            return Err(refused("cannot delete path in scalar"));
        }
        change(&mut target, &path(call, 1, row)?, 0, None, Change::Delete)?;
        Ok(Some(target.to_string()))
    })
}

fn remove_key(target: &mut Document, key: &str) -> Result<()> {
    match target {
        Document::Object(_) => {
            target.remove(key);
        }
        Document::Array(elements) => {
            elements.retain(|e| !matches!(e, Document::String(text) if text == key));
        }
        _ => return Err(refused("cannot delete from scalar")),
    }
    Ok(())
}

fn delete_key(call: &Call<'_>) -> Result<ArrayRef> {
    let keys = call.text(1)?;
    call.texts(|row| {
        let Some(mut target) = document(call, 0, row)? else { return Ok(None) };
        remove_key(&mut target, keys.value(row))?;
        Ok(Some(target.to_string()))
    })
}

fn delete(call: &Call<'_>) -> Result<ArrayRef> {
    call.texts(|row| {
        let Some(mut target) = document(call, 0, row)? else { return Ok(None) };
        if let Ok(places) = call.int4(1) {
            match &mut target {
                Document::Array(elements) => {
                    let index = i64::from(places.value(row));
                    let length = elements.len() as i64;
                    let at = if index < 0 { index + length } else { index };
                    if let Some(at) = usize::try_from(at).ok().filter(|at| *at < elements.len()) {
                        elements.remove(at);
                    }
                }
                Document::Object(_) => return Err(refused("cannot delete from object using integer index")),
                _ => return Err(refused("cannot delete from scalar")),
            }
        } else {
            for key in super::define::texts_at(call.list(1)?, row)?.into_iter().flatten() {
                remove_key(&mut target, &key)?;
            }
        }
        Ok(Some(target.to_string()))
    })
}

fn concat(call: &Call<'_>) -> Result<ArrayRef> {
    call.texts(|row| {
        let (Some(left), Some(right)) = (document(call, 0, row)?, document(call, 1, row)?) else {
            return Ok(None);
        };
        let joined = match (left, right) {
            (Document::Object(mut a), Document::Object(b)) => {
                a.extend(b);
                Document::Object(a)
            }
            (left, right) => {
                // What is no array is one of one element.
                let elements = |d| match d {
                    Document::Array(elements) => elements,
                    other => vec![other],
                };
                let mut all = elements(left);
                all.extend(elements(right));
                Document::Array(all)
            }
        };
        Ok(Some(joined.to_string()))
    })
}

fn object(call: &Call<'_>) -> Result<ArrayRef> {
    let mismatch = |message: &str| Error::new(SqlState("2202E"), message);
    call.texts(|row| {
        let mut first = super::define::texts_at(call.list(0)?, row)?;
        let pairs: Vec<(Option<String>, Option<String>)> = if call.arrays.len() > 1 {
            let second = super::define::texts_at(call.list(1)?, row)?;
            if first.len() != second.len() {
                return Err(mismatch("mismatched array dimensions"));
            }
            first.into_iter().zip(second).collect()
        } else {
            if first.len() % 2 == 1 {
                return Err(mismatch("array must have even number of elements"));
            }
            first.chunks_exact_mut(2).map(|pair| (pair[0].take(), pair[1].take())).collect()
        };
        let mut document = Document::Object(Default::default());
        for (key, value) in pairs {
            let Some(key) = key else {
                return Err(Error::new(SqlState("22004"), "null value not allowed for object key"));
            };
            document.insert(&key, value.map_or(Document::Null, Document::String));
        }
        Ok(Some(document.to_string()))
    })
}

fn elements(call: &Call<'_>, form: impl Fn(&Document) -> Option<String>) -> Result<ArrayRef> {
    call.text_lists(|row| match document(call, 0, row)? {
        None => Ok(None),
        Some(Document::Array(elements)) => Ok(Some(elements.iter().map(&form).collect())),
        Some(Document::Object(_)) => Err(refused("cannot extract elements from an object")),
        Some(_) => Err(refused("cannot extract elements from a scalar")),
    })
}

fn members(
    call: &Call<'_>,
    function: &str,
    form: impl Fn(&str, &Document) -> Option<String>,
) -> Result<ArrayRef> {
    call.text_lists(|row| match document(call, 0, row)? {
        None => Ok(None),
        Some(object @ Document::Object(_)) => Ok(Some(object.members().map(|(k, v)| form(k, v)).collect())),
        Some(other) if function == "object_keys" => {
            let what = if matches!(other, Document::Array(_)) { "an array" } else { "a scalar" };
            Err(refused(format!("cannot call jsonb_object_keys on {what}")))
        }
        Some(_) => Err(refused(format!("cannot call jsonb_{function} on a non-object"))),
    })
}
