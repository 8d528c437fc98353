//! Trigonometric functions of degrees, exact where the angle is.

use std::sync::Arc;

use arrow::array::ArrayRef;
use arrow::datatypes::Float64Type;
use datafusion::logical_expr::ScalarUDF;

use super::define::{Arg, Call, Definition, Gives};
use crate::error::{Error, Result, SqlState};

use Arg::Float8;

const fn function(name: &'static str, evaluate: fn(&Call<'_>) -> Result<ArrayRef>) -> Definition {
    Definition { name, forms: &[&[Float8]], variadic: false, gives: Gives::Float8, evaluate }
}

const DEFINITIONS: [Definition; 8] = [
    function("sind", |call| of_angle(call, |x| Ok(sine(x)))),
    function("cosd", |call| of_angle(call, |x| Ok(cosine(x)))),
    function("tand", |call| of_angle(call, |x| Ok(tangent(x)))),
    function("cotd", |call| of_angle(call, |x| Ok(1.0 / tangent(x)))),
    function("asind", |call| of_number(call, |x| within_one(x).map(arcsine))),
    function("acosd", |call| of_number(call, |x| within_one(x).map(arccosine))),
    function("atand", |call| of_number(call, |x| Ok(x.atan() / 1f64.atan() * 45.0))),
    Definition {
        name: "atan2d",
        forms: &[&[Float8, Float8]],
        variadic: false,
        gives: Gives::Float8,
        evaluate: |call| {
            let (y, x) = (call.float8(0)?, call.float8(1)?);
            call.values::<Float64Type>(|row| Ok(Some(y.value(row).atan2(x.value(row)) / 1f64.atan() * 45.0)))
        },
    },
];

/// The functions of this file.
pub(super) fn functions() -> Vec<Arc<ScalarUDF>> {
    DEFINITIONS.into_iter().map(Definition::udf).collect()
}

fn of_number(call: &Call<'_>, f: fn(f64) -> Result<f64>) -> Result<ArrayRef> {
    let values = call.float8(0)?;
    call.values::<Float64Type>(|row| f(values.value(row)).map(Some))
}

fn of_angle(call: &Call<'_>, f: fn(f64) -> Result<f64>) -> Result<ArrayRef> {
    let values = call.float8(0)?;
    call.values::<Float64Type>(|row| {
        let angle = values.value(row);
        if angle.is_infinite() {
            return Err(out_of_range());
        }
        f(angle).map(Some)
    })
}

fn out_of_range() -> Error {
    Error::new(SqlState::NUMERIC_VALUE_OUT_OF_RANGE, "input is out of range")
}

fn within_one(x: f64) -> Result<f64> {
    if x.abs() > 1.0 { Err(out_of_range()) } else { Ok(x) }
}

/// The sine of 0 to 90 degrees: 30 gives exactly one half, 90 exactly one.
fn first_quadrant_sine(degrees: f64) -> f64 {
    if degrees <= 30.0 {
        degrees.to_radians().sin() / 30f64.to_radians().sin() / 2.0
    } else {
        first_quadrant_cosine(90.0 - degrees)
    }
}

/// The cosine of 0 to 90 degrees: 60 gives exactly one half, 0 exactly one.
fn first_quadrant_cosine(degrees: f64) -> f64 {
    if degrees <= 60.0 {
        let fall = 1.0 - degrees.to_radians().cos();
        1.0 - fall / (1.0 - 60f64.to_radians().cos()) / 2.0
    } else {
        first_quadrant_sine(90.0 - degrees)
    }
}

fn sine(degrees: f64) -> f64 {
    let (mut angle, mut sign) = (degrees % 360.0, 1.0);
    if angle < 0.0 {
        (angle, sign) = (-angle, -sign);
    }
    if angle > 180.0 {
        (angle, sign) = (360.0 - angle, -sign);
    }
    if angle > 90.0 {
        angle = 180.0 - angle;
    }
    sign * first_quadrant_sine(angle)
}

fn cosine(degrees: f64) -> f64 {
    let (mut angle, mut sign) = ((degrees % 360.0).abs(), 1.0);
    if angle > 180.0 {
        angle = 360.0 - angle;
    }
    if angle > 90.0 {
        (angle, sign) = (180.0 - angle, -1.0);
    }
    sign * first_quadrant_cosine(angle)
}

fn tangent(degrees: f64) -> f64 {
    let one = first_quadrant_sine(45.0) / first_quadrant_cosine(45.0);
    sine(degrees) / cosine(degrees) / one
}

/// An arcsine of 0 to 1: one half gives exactly 30, 1 exactly 90.
fn first_quadrant_arcsine(x: f64) -> f64 {
    if x <= 0.5 { x.asin() / 0.5f64.asin() * 30.0 } else { 90.0 - x.acos() / 0.5f64.acos() * 60.0 }
}

fn arcsine(x: f64) -> f64 {
    if x < 0.0 { -first_quadrant_arcsine(-x) } else { first_quadrant_arcsine(x) }
}

fn arccosine(x: f64) -> f64 {
    if x < 0.0 { 90.0 + first_quadrant_arcsine(-x) } else { 90.0 - first_quadrant_arcsine(x) }
}
