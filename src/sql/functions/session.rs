//! Functions of the session and the moment: who, where, when; identifiers; types of values.

use std::sync::Arc;

use arrow::array::StringViewArray;
use arrow::datatypes::{DataType, FieldRef};
use datafusion::common::{Result, ScalarValue};
use datafusion::logical_expr::simplify::{ExprSimplifyResult, SimplifyContext};
use datafusion::logical_expr::{
    ColumnarValue, Expr, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility,
};

use crate::sql::plan::SessionInfo;
use crate::types::{Moment, SqlType};
use crate::world;

/// The functions that know nothing of a session.
pub fn functions() -> Vec<Arc<ScalarUDF>> {
    vec![
        Arc::new(ScalarUDF::new_from_impl(Now::new("now", SqlType::Timestamptz))),
        Arc::new(ScalarUDF::new_from_impl(Now::new("current_timestamp", SqlType::Timestamptz))),
        Arc::new(ScalarUDF::new_from_impl(Now::new("transaction_timestamp", SqlType::Timestamptz))),
        Arc::new(ScalarUDF::new_from_impl(Now::new("statement_timestamp", SqlType::Timestamptz))),
        Arc::new(ScalarUDF::new_from_impl(Now::new("localtimestamp", SqlType::Timestamp))),
        Arc::new(ScalarUDF::new_from_impl(Clock::new("clock_timestamp", SqlType::Timestamptz))),
        Arc::new(ScalarUDF::new_from_impl(Clock::new("timeofday", SqlType::Text))),
        Arc::new(ScalarUDF::new_from_impl(RandomUuid::default())),
        Arc::new(ScalarUDF::new_from_impl(TypeOf::default())),
    ]
}

/// A function whose answer is the session's: `current_user`. `schema` is the one where it makes what it gives no schema.
pub fn constant(name: &str, session: &SessionInfo, schema: Option<&str>) -> Option<Arc<ScalarUDF>> {
    let text = |value: &str| ScalarValue::Utf8View(Some(value.to_string()));
    let (value, volatility) = match name {
        "current_user" | "session_user" | "user" | "current_role" => {
            (text(&session.user), Volatility::Stable)
        }
        "current_database" | "current_catalog" => (text(&session.database), Volatility::Stable),
        "current_schema" => (ScalarValue::Utf8View(schema.map(str::to_string)), Volatility::Stable),
        "version" => (
            text(concat!("PostgreSQL 17.0 (Tidemill ", env!("CARGO_PKG_VERSION"), ")")),
            Volatility::Immutable,
        ),
        _ => return None,
    };
    let signature = Signature::nullary(volatility);
    Some(Arc::new(ScalarUDF::new_from_impl(Constant { name: name.to_string(), value, signature })))
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct Constant {
    name: String,
    value: ScalarValue,
    signature: Signature,
}

impl ScalarUDFImpl for Constant {
    fn name(&self) -> &str {
        &self.name
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(self.value.data_type())
    }

    fn invoke_with_args(&self, _: ScalarFunctionArgs) -> Result<ColumnarValue> {
        Ok(ColumnarValue::Scalar(self.value.clone()))
    }
}

/// The time at which the statement began: the same for all of it.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Now {
    name: &'static str,
    sql_type: SqlType,
    signature: Signature,
}

impl Now {
    fn new(name: &'static str, sql_type: SqlType) -> Self {
        Now { name, sql_type, signature: Signature::nullary(Volatility::Stable) }
    }

    fn value(&self, micros: i64) -> ScalarValue {
        match self.sql_type.arrow() {
            DataType::Timestamp(_, zone) => ScalarValue::TimestampMicrosecond(Some(micros), zone),
            _ => ScalarValue::TimestampMicrosecond(Some(micros), None),
        }
    }
}

impl ScalarUDFImpl for Now {
    fn name(&self) -> &str {
        self.name
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(self.sql_type.arrow())
    }

    fn simplify(&self, args: Vec<Expr>, info: &SimplifyContext) -> Result<ExprSimplifyResult> {
        Ok(match info.query_execution_start_time() {
            Some(start) => {
                ExprSimplifyResult::Simplified(Expr::Literal(self.value(start.timestamp_micros()), None))
            }
            None => ExprSimplifyResult::Original(args),
        })
    }

    fn invoke_with_args(&self, _: ScalarFunctionArgs) -> Result<ColumnarValue> {
        Ok(ColumnarValue::Scalar(self.value(world::now_micros())))
    }
}

/// The time as it passes, as a value or as text.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Clock {
    name: &'static str,
    sql_type: SqlType,
    signature: Signature,
}

impl Clock {
    fn new(name: &'static str, sql_type: SqlType) -> Self {
        Clock { name, sql_type, signature: Signature::nullary(Volatility::Volatile) }
    }
}

impl ScalarUDFImpl for Clock {
    fn name(&self) -> &str {
        self.name
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(self.sql_type.arrow())
    }

    fn invoke_with_args(&self, _: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let now = world::now_micros();
        Ok(ColumnarValue::Scalar(match self.sql_type {
            SqlType::Text => ScalarValue::Utf8View(Some(time_of_day(now))),
            _ => ScalarValue::TimestampMicrosecond(Some(now), Some("+00:00".into())),
        }))
    }
}

/// `Wed Nov 25 21:43:51.123456 2026 UTC`
fn time_of_day(micros: i64) -> String {
    const DAYS: [&str; 7] = ["Sun", "Mon", "Tue", "Wed", "Thu", "Fri", "Sat"];
    const MONTHS: [&str; 12] =
        ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let at = Moment::of(micros);
    // Weekdays are 0 to 6, months 1 to 12.
    let (day, month) = (DAYS[at.weekday as usize % 7], MONTHS[(at.month as usize + 11) % 12]);
    format!(
        "{day} {month} {:02} {:02}:{:02}:{:02}.{:06} {} UTC",
        at.day, at.hour, at.minute, at.second, at.micros, at.year
    )
}

/// A new UUID for every row.
#[derive(Debug, PartialEq, Eq, Hash)]
struct RandomUuid {
    signature: Signature,
}

impl Default for RandomUuid {
    fn default() -> Self {
        RandomUuid { signature: Signature::nullary(Volatility::Volatile) }
    }
}

impl ScalarUDFImpl for RandomUuid {
    fn name(&self) -> &str {
        "gen_random_uuid"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(SqlType::Uuid.arrow())
    }

    fn return_field_from_args(&self, _: ReturnFieldArgs<'_>) -> Result<FieldRef> {
        Ok(SqlType::Uuid.field_ref(self.name(), false))
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let uuids: StringViewArray =
            (0..args.number_rows).map(|_| Some(world::uuid().hyphenated().to_string())).collect();
        Ok(ColumnarValue::Array(Arc::new(uuids)))
    }
}

/// The name of a value's type.
#[derive(Debug, PartialEq, Eq, Hash)]
struct TypeOf {
    signature: Signature,
}

impl Default for TypeOf {
    fn default() -> Self {
        TypeOf { signature: Signature::any(1, Volatility::Immutable) }
    }
}

impl ScalarUDFImpl for TypeOf {
    fn name(&self) -> &str {
        "pg_typeof"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(DataType::Utf8View)
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        // A modifier is never told.
        fn plain(sql_type: SqlType) -> String {
            match sql_type {
                SqlType::Numeric(_) => "numeric".to_string(),
                SqlType::Varchar(_) => "character varying".to_string(),
                SqlType::Char(_) => "character".to_string(),
                SqlType::Array(item) => format!("{}[]", plain(*item).trim_end_matches("[]")),
                other => other.to_string(),
            }
        }
        let name = args.arg_fields.first().map(|f| plain(SqlType::of(f)));
        Ok(ColumnarValue::Scalar(ScalarValue::Utf8View(name)))
    }
}
