//! What signed messages are checked with: `hmac`, as PostgreSQL's pgcrypto has it, and a comparison that takes as
//! long for values that are nearly equal as for others.

use std::sync::Arc;

use arrow::array::{Array, BinaryArray, StringViewArray};
use arrow::datatypes::DataType;
use datafusion::logical_expr::ScalarUDF;
use ring::hmac;

use super::define::{Arg, Call, Definition, Gives};
use crate::error::{Error, Result, SqlState};

use Arg::{Bytea, Text};

const DEFINITIONS: [Definition; 2] = [
    Definition {
        name: "hmac",
        forms: &[&[Text, Text, Text], &[Bytea, Text, Text], &[Text, Bytea, Text], &[Bytea, Bytea, Text]],
        variadic: false,
        gives: Gives::Bytea,
        evaluate: |call| {
            let (data, keys) = (Bytes::of(call, 0)?, Bytes::of(call, 1)?);
            let algorithms = call.text(2)?;
            call.bytes(|row| {
                let key = hmac::Key::new(algorithm(algorithms.value(row))?, keys.value(row));
                Ok(Some(hmac::sign(&key, data.value(row)).as_ref().to_vec()))
            })
        },
    },
    Definition {
        name: "constant_time_eq",
        forms: &[&[Text, Text], &[Bytea, Text], &[Text, Bytea], &[Bytea, Bytea]],
        variadic: false,
        gives: Gives::Bool,
        evaluate: |call| {
            let (left, right) = (Bytes::of(call, 0)?, Bytes::of(call, 1)?);
            call.bools(|row| {
                // A text that is compared with bytes spells them in hexadecimal digits, as signatures' headers do.
                let (mut a, mut b) = (left.value(row).to_vec(), right.value(row).to_vec());
                match (left.is_text(), right.is_text()) {
                    (true, false) => b = hex::encode(b).into_bytes(),
                    (false, true) => a = hex::encode(a).into_bytes(),
                    _ => return Ok(Some(same(&a, &b))),
                }
                Ok(Some(same(&a.to_ascii_lowercase(), &b.to_ascii_lowercase())))
            })
        },
    },
];

/// The functions of this file.
pub(super) fn functions() -> Vec<Arc<ScalarUDF>> {
    DEFINITIONS.into_iter().map(Definition::udf).collect()
}

/// An argument that is text or bytes.
enum Bytes<'a> {
    Text(&'a StringViewArray),
    Binary(&'a BinaryArray),
}

impl<'a> Bytes<'a> {
    fn of(call: &'a Call<'_>, i: usize) -> Result<Bytes<'a>> {
        match call.array(i)?.data_type() {
            DataType::Binary => call.bytea(i).map(Bytes::Binary),
            _ => call.text(i).map(Bytes::Text),
        }
    }

    fn is_text(&self) -> bool {
        matches!(self, Bytes::Text(_))
    }

    fn value(&self, row: usize) -> &[u8] {
        match self {
            Bytes::Text(array) => array.value(row).as_bytes(),
            Bytes::Binary(array) => array.value(row),
        }
    }
}

fn algorithm(name: &str) -> Result<hmac::Algorithm> {
    match name.to_ascii_lowercase().as_str() {
        "sha1" => Ok(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY),
        "sha256" => Ok(hmac::HMAC_SHA256),
        "sha384" => Ok(hmac::HMAC_SHA384),
        "sha512" => Ok(hmac::HMAC_SHA512),
        _ => Err(Error::new(
            SqlState::INVALID_PARAMETER_VALUE,
            format!("Cannot use \"{name}\": No such hash algorithm"),
        )
        .with_hint("Known: sha1, sha256, sha384, sha512.")),
    }
}

/// Compares every byte, wherever the first difference is; lengths are no secret.
fn same(a: &[u8], b: &[u8]) -> bool {
    let difference = a.iter().zip(b).fold(0u8, |seen, (x, y)| seen | (x ^ y));
    a.len() == b.len() && std::hint::black_box(difference) == 0
}
