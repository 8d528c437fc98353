//! Formatting and quoting: `to_char`, `quote_ident`, `timezone`, `to_timestamp`.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, StringViewBuilder, TimestampMicrosecondArray};
use arrow::datatypes::{DataType, Float64Type, TimestampMicrosecondType};
use datafusion::common::{Result, ScalarValue};
use datafusion::logical_expr::{
    ColumnarValue, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, TypeSignature, Volatility,
};

use crate::error::{Error, SqlState};
use crate::names::{quote, quote_literal};
use crate::types::{Moment, SqlType, Zone, is_string};

/// The functions of this file.
pub fn functions() -> Vec<Arc<ScalarUDF>> {
    let timestamps = || [SqlType::Timestamptz.arrow(), SqlType::Timestamp.arrow()];
    let exact = |types: Vec<DataType>| TypeSignature::Exact(types);
    let [zoned, local] = timestamps();
    let text = DataType::Utf8View;
    [
        (Kind::ToChar, vec![exact(vec![zoned, text.clone()]), exact(vec![local, text.clone()])]),
        (Kind::Timezone, vec![TypeSignature::UserDefined]),
        (Kind::ToTimestamp, vec![exact(vec![DataType::Float64])]),
        (Kind::QuoteIdent, vec![exact(vec![text.clone()])]),
        (Kind::QuoteLiteral, vec![exact(vec![text])]),
    ]
    .into_iter()
    .map(|(kind, types)| {
        let signature = Signature::one_of(types, Volatility::Immutable);
        Arc::new(ScalarUDF::new_from_impl(Function { kind, signature }))
    })
    .collect()
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Kind {
    ToChar,
    Timezone,
    ToTimestamp,
    QuoteIdent,
    QuoteLiteral,
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct Function {
    kind: Kind,
    signature: Signature,
}

impl ScalarUDFImpl for Function {
    fn name(&self) -> &str {
        match self.kind {
            Kind::ToChar => "to_char",
            Kind::Timezone => "timezone",
            Kind::ToTimestamp => "to_timestamp",
            Kind::QuoteIdent => "quote_ident",
            Kind::QuoteLiteral => "quote_literal",
        }
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    /// Of `timezone` only, whose result depends on whether a zone was given: neither may become the other.
    fn coerce_types(&self, types: &[DataType]) -> Result<Vec<DataType>> {
        let at = match types {
            [_, DataType::Timestamp(_, Some(_)) | DataType::Date32 | DataType::Date64] => {
                SqlType::Timestamptz
            }
            [_, DataType::Timestamp(_, None)] => SqlType::Timestamp,
            [_, DataType::Null] => SqlType::Timestamptz,
            [_, other] if is_string(other) => SqlType::Timestamptz,
            _ => {
                let types: Vec<String> = types.iter().map(ToString::to_string).collect();
                return Err(datafusion::error::DataFusionError::Plan(format!(
                    "No function matches the given name and argument types '{}({})'",
                    self.name(),
                    types.join(", ")
                )));
            }
        };
        Ok(vec![DataType::Utf8View, at.arrow()])
    }

    fn return_type(&self, types: &[DataType]) -> Result<DataType> {
        Ok(match self.kind {
            Kind::ToTimestamp => SqlType::Timestamptz.arrow(),
            // A moment in a zone is local time there; a local time in a zone is a moment.
            Kind::Timezone => match types.get(1) {
                Some(DataType::Timestamp(_, Some(_))) => SqlType::Timestamp.arrow(),
                _ => SqlType::Timestamptz.arrow(),
            },
            _ => DataType::Utf8View,
        })
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let scalar = args.args.iter().all(|a| matches!(a, ColumnarValue::Scalar(_)));
        let to = args.return_type().clone();
        let arrays = ColumnarValue::values_to_arrays(&args.args)?;
        let result = match (self.kind, arrays.as_slice()) {
            (Kind::ToChar, [at, pattern]) => to_char(at, pattern),
            (Kind::Timezone, [zone, at]) => timezone(zone, at)?,
            (Kind::ToTimestamp, [seconds]) => to_timestamp(seconds)?,
            (Kind::QuoteIdent, [text]) => map_text(text, quote),
            (Kind::QuoteLiteral, [text]) => map_text(text, quote_literal),
            _ => return Err(Error::internal(format!("{} with other arguments", self.name())).into()),
        };
        debug_assert_eq!(result.data_type(), &to);
        if scalar {
            return Ok(ColumnarValue::Scalar(ScalarValue::try_from_array(&result, 0)?));
        }
        Ok(ColumnarValue::Array(result))
    }
}

fn map_text(text: &ArrayRef, f: impl Fn(&str) -> String) -> ArrayRef {
    let mut builder = StringViewBuilder::with_capacity(text.len());
    text.as_string_view().iter().for_each(|v| builder.append_option(v.map(&f)));
    Arc::new(builder.finish())
}

fn to_timestamp(seconds: &ArrayRef) -> crate::Result<ArrayRef> {
    let micros: TimestampMicrosecondArray = seconds.as_primitive::<Float64Type>().try_unary(|s| {
        let micros = (s * 1e6).round();
        if micros.abs() < 9.2e18 {
            Ok(micros as i64)
        } else {
            Err(Error::new(SqlState("22008"), format!("timestamp out of range: \"{s}\"")))
        }
    })?;
    Ok(Arc::new(micros.with_timezone("+00:00")))
}

fn timezone(zone: &ArrayRef, at: &ArrayRef) -> crate::Result<ArrayRef> {
    let zones = zone.as_string_view();
    let zoned = matches!(at.data_type(), DataType::Timestamp(_, Some(_)));
    let at = at.as_primitive::<TimestampMicrosecondType>();
    let shifted: TimestampMicrosecondArray = zones
        .iter()
        .zip(at)
        .map(|(zone, at)| {
            let (Some(zone), Some(at)) = (zone, at) else { return Ok(None) };
            let zone = Zone::parse(zone).ok_or_else(|| {
                Error::new(SqlState::INVALID_PARAMETER_VALUE, format!("time zone \"{zone}\" not recognized"))
                    .with_hint("Use UTC, an offset such as +02:00, or a name such as Europe/Berlin.")
            })?;
            let shift = if zoned { zone.offset_at(at) } else { -zone.offset_of_local(at) };
            Ok(Some(at.saturating_add(i64::from(shift) * 1_000_000)))
        })
        .collect::<crate::Result<_>>()?;
    Ok(if zoned { Arc::new(shifted) } else { Arc::new(shifted.with_timezone("+00:00")) })
}

fn to_char(at: &ArrayRef, pattern: &ArrayRef) -> ArrayRef {
    let mut builder = StringViewBuilder::with_capacity(at.len());
    for (at, pattern) in at.as_primitive::<TimestampMicrosecondType>().iter().zip(pattern.as_string_view()) {
        match (at, pattern) {
            (Some(at), Some(pattern)) => builder.append_value(format_pattern(&Moment::of(at), pattern)),
            _ => builder.append_null(),
        }
    }
    Arc::new(builder.finish())
}

const MONTHS: [&str; 12] = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
];
const DAYS: [&str; 7] = ["Sunday", "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday"];

/// `YYYY-MM-DD HH24:MI:SS` and its kin.
fn format_pattern(at: &Moment, pattern: &str) -> String {
    let (month, day) = (MONTHS[(at.month as usize + 11) % 12], DAYS[at.weekday as usize % 7]);
    let hour12 = (at.hour + 11) % 12 + 1;
    let cased = |word: &str, given: &str| {
        if given.chars().all(char::is_uppercase) {
            word.to_uppercase()
        } else if given.starts_with(char::is_uppercase) {
            word.to_string()
        } else {
            word.to_lowercase()
        }
    };
    // Longest first: the first one that the rest of the pattern starts with is meant.
    let tokens: [(&str, String); 24] = [
        ("YYYY", format!("{:04}", at.year)),
        ("HH24", format!("{:02}", at.hour)),
        ("HH12", format!("{hour12:02}")),
        ("MONTH", format!("{month:<9}")),
        ("MON", month[..3].to_string()),
        ("DAY", format!("{day:<9}")),
        ("DDD", format!("{:03}", at.day_of_year)),
        ("YYY", format!("{:03}", at.year.rem_euclid(1000))),
        ("HH", format!("{hour12:02}")),
        ("MI", format!("{:02}", at.minute)),
        ("MM", format!("{:02}", at.month)),
        ("MS", format!("{:03}", at.micros / 1000)),
        ("US", format!("{:06}", at.micros)),
        ("SS", format!("{:02}", at.second)),
        ("DD", format!("{:02}", at.day)),
        ("DY", day[..3].to_string()),
        ("YY", format!("{:02}", at.year.rem_euclid(100))),
        ("AM", if at.hour < 12 { "AM" } else { "PM" }.to_string()),
        ("PM", if at.hour < 12 { "AM" } else { "PM" }.to_string()),
        ("TZ", "UTC".to_string()),
        ("OF", "+00".to_string()),
        ("D", (at.weekday + 1).to_string()),
        ("Q", ((at.month - 1) / 3 + 1).to_string()),
        ("Y", at.year.rem_euclid(10).to_string()),
    ];
    let mut out = String::with_capacity(pattern.len() + 8);
    let mut rest = pattern;
    let mut fill = true;
    while let Some(c) = rest.chars().next() {
        if let Some(quoted) = rest.strip_prefix('"') {
            let end = quoted.find('"').unwrap_or(quoted.len());
            out.push_str(&quoted[..end]);
            rest = quoted.get(end + 1..).unwrap_or_default();
            continue;
        }
        if let Some(after) = rest.strip_prefix("FM") {
            fill = false;
            rest = after;
            continue;
        }
        let token = tokens
            .iter()
            .find(|(name, _)| rest.get(..name.len()).is_some_and(|start| start.eq_ignore_ascii_case(name)));
        match token {
            Some((name, value)) => {
                let given = &rest[..name.len()];
                let value = if fill {
                    value.as_str()
                } else {
                    let trimmed = value.trim_end().trim_start_matches('0');
                    if trimmed.is_empty() { "0" } else { trimmed }
                };
                let word = matches!(*name, "MONTH" | "MON" | "DAY" | "DY" | "AM" | "PM" | "TZ");
                out.push_str(&if word { cased(value, given) } else { value.to_string() });
                rest = &rest[name.len()..];
                fill = true;
            }
            None => {
                out.push(c);
                rest = &rest[c.len_utf8()..];
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_are_postgresqls() {
        // 2024-02-09 17:05:03.045678, a Friday.
        let at = Moment::of(1_707_498_303_045_678);
        for (pattern, expected) in [
            ("YYYY-MM-DD HH24:MI:SS", "2024-02-09 17:05:03"),
            ("HH12:MI AM", "05:05 PM"),
            ("MS US", "045 045678"),
            ("Mon DD, YYYY", "Feb 09, 2024"),
            ("FMMonth FMDD", "February 9"),
            ("MON mon", "FEB feb"),
            ("Dy D DDD Q", "Fri 6 040 1"),
            ("\"YYYY\" YY", "YYYY 24"),
        ] {
            assert_eq!(format_pattern(&at, pattern), expected, "{pattern}");
        }
    }
}
