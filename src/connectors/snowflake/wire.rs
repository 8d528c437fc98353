//! The driver protocol's bodies, as far as they are read, and result rows as text.

use arrow::array::Array;
use arrow::ipc::reader::StreamReader;
use arrow::util::display::{ArrayFormatter, FormatOptions};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use serde::Deserialize;

use crate::error::{Error, Result, SqlState};

/// What every endpoint answers.
#[derive(Debug, Deserialize)]
pub struct Answer<T> {
    /// The endpoint's own part.
    pub data: Option<T>,
    /// A number of six digits, for failures and for `still running`.
    #[serde(default, deserialize_with = "number_or_text")]
    pub code: Option<String>,
    /// For people.
    pub message: Option<String>,
    /// Whether it worked.
    #[serde(default)]
    pub success: bool,
}

fn number_or_text<'de, D: serde::Deserializer<'de>>(d: D) -> std::result::Result<Option<String>, D::Error> {
    Ok(match Option::<serde_json::Value>::deserialize(d)? {
        Some(serde_json::Value::String(s)) => Some(s),
        Some(serde_json::Value::Number(n)) => Some(format!("{:0>6}", n.to_string())),
        _ => None,
    })
}

/// The session that a login or a renewal gives.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LoginData {
    /// Goes with every request. A renewal calls it `sessionToken`.
    #[serde(alias = "sessionToken")]
    pub token: Option<String>,
    /// Renews the token.
    pub master_token: Option<String>,
}

/// What became of a statement.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct QueryData {
    /// Names it in Snowflake's history.
    pub query_id: Option<String>,
    /// SQLSTATE of a failure.
    pub sql_state: Option<String>,
    /// Columns of the rows.
    #[serde(default)]
    pub rowtype: Vec<ColumnType>,
    /// Rows as JSON.
    pub rowset: Option<Vec<Vec<Option<serde_json::Value>>>>,
    /// Rows as an Arrow stream.
    pub rowset_base64: Option<String>,
    /// Where further rows are.
    #[serde(default)]
    pub chunks: Vec<Chunk>,
    /// Headers to fetch them with.
    #[serde(default)]
    pub chunk_headers: std::collections::HashMap<String, String>,
    /// Where to ask for the result of a statement that still runs.
    pub get_result_url: Option<String>,
    /// For PUT: where the file goes.
    pub stage_info: Option<StageInfo>,
    /// For PUT: a key, when the file has to be encrypted by us.
    pub encryption_material: Option<serde_json::Value>,
}

/// A column of a result.
#[derive(Debug, Deserialize)]
pub struct ColumnType {
    /// Its name.
    pub name: String,
    /// Digits after the point, of a number.
    #[serde(default)]
    pub scale: Option<i64>,
}

/// A part of a result that is fetched by itself.
#[derive(Debug, Deserialize)]
pub struct Chunk {
    /// Where it is.
    pub url: String,
}

/// Where a stage's files are.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct StageInfo {
    /// `S3`, `GCS`, `AZURE`, `LOCAL_FS`.
    pub location_type: String,
    /// Bucket or container, then a prefix.
    pub location: String,
    /// Region of the bucket.
    pub region: Option<String>,
    /// Azure's account.
    pub storage_account: Option<String>,
    /// Host that replaces the cloud's usual one.
    pub end_point: Option<String>,
    /// A url that takes exactly the file that was named.
    pub presigned_url: Option<String>,
    /// Short-lived credentials.
    #[serde(default)]
    pub creds: Option<StageCredentials>,
}

impl std::fmt::Debug for StageInfo {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "StageInfo({} {})", self.location_type, self.location)
    }
}

/// Credentials for a stage, by cloud.
#[derive(Default, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
#[allow(missing_docs)] // the names are the clouds' own
pub struct StageCredentials {
    #[serde(rename = "AWS_KEY_ID")]
    pub aws_key_id: Option<String>,
    #[serde(rename = "AWS_SECRET_KEY")]
    pub aws_secret_key: Option<String>,
    #[serde(rename = "AWS_TOKEN")]
    pub aws_token: Option<String>,
    #[serde(rename = "AZURE_SAS_TOKEN")]
    pub azure_sas_token: Option<String>,
    #[serde(rename = "GCS_ACCESS_TOKEN")]
    pub gcs_access_token: Option<String>,
}

/// A small result, as text by column name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rows {
    columns: Vec<String>,
    rows: Vec<Vec<Option<String>>>,
}

impl Rows {
    /// An empty result with these columns.
    pub fn new(types: &[ColumnType]) -> Self {
        Rows { columns: types.iter().map(|t| t.name.clone()).collect(), rows: Vec::new() }
    }

    /// How many rows there are.
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// A value; `None`: NULL, or no such column.
    pub fn get(&self, row: usize, column: &str) -> Option<&str> {
        let place = self.columns.iter().position(|c| c.eq_ignore_ascii_case(column))?;
        self.rows.get(row)?.get(place)?.as_deref()
    }

    /// A value that must be a whole number.
    pub fn number(&self, row: usize, column: &str) -> Result<u64> {
        let text = self.get(row, column);
        text.and_then(|t| t.trim().parse().ok()).ok_or_else(|| {
            Error::new(
                SqlState::PROTOCOL_VIOLATION,
                format!("Snowflake answered {} for {column}", text.unwrap_or("nothing")),
            )
        })
    }

    /// Adds rows that came as JSON.
    pub fn extend_json(&mut self, rows: Vec<Vec<Option<serde_json::Value>>>) {
        let text = |value: Option<serde_json::Value>| match value? {
            serde_json::Value::Null => None,
            serde_json::Value::String(s) => Some(s),
            other => Some(other.to_string()),
        };
        self.rows.extend(rows.into_iter().map(|row| row.into_iter().map(text).collect()));
    }

    /// Adds rows that came as an Arrow stream.
    pub fn extend_arrow(&mut self, types: &[ColumnType], stream: &[u8]) -> Result<()> {
        let options = FormatOptions::default();
        for batch in StreamReader::try_new(stream, None)? {
            let batch = batch?;
            let formatters = batch
                .columns()
                .iter()
                .map(|c| ArrayFormatter::try_new(c.as_ref(), &options))
                .collect::<std::result::Result<Vec<_>, _>>()?;
            for row in 0..batch.num_rows() {
                let mut values = Vec::with_capacity(formatters.len());
                for (place, formatter) in formatters.iter().enumerate() {
                    let column = batch.column(place);
                    values.push(match column.is_null(row) {
                        true => None,
                        false => {
                            let text = formatter.value(row).try_to_string()?;
                            let scale = types.get(place).and_then(|t| t.scale).unwrap_or(0);
                            Some(if column.data_type().is_integer() {
                                with_scale(&text, scale)
                            } else {
                                text
                            })
                        }
                    });
                }
                self.rows.push(values);
            }
        }
        Ok(())
    }

    /// Adds the rows that an answer holds itself.
    pub fn extend(&mut self, data: &mut QueryData) -> Result<()> {
        if let Some(text) = data.rowset_base64.take().filter(|t| !t.is_empty()) {
            let stream = STANDARD.decode(text).map_err(|e| {
                Error::new(SqlState::PROTOCOL_VIOLATION, format!("Snowflake's rows are no base64: {e}"))
            })?;
            self.extend_arrow(&data.rowtype, &stream)?;
        } else if let Some(rows) = data.rowset.take() {
            self.extend_json(rows);
        }
        Ok(())
    }
}

/// Snowflake sends a decimal as a whole number, the place of its point beside it.
fn with_scale(digits: &str, scale: i64) -> String {
    let Ok(scale) = usize::try_from(scale) else { return digits.to_string() };
    if scale == 0 {
        return digits.to_string();
    }
    let (sign, digits) = digits.strip_prefix('-').map_or(("", digits), |d| ("-", d));
    let digits = format!("{digits:0>width$}", width = scale + 1);
    let (whole, fraction) = digits.split_at(digits.len() - scale);
    format!("{sign}{whole}.{fraction}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::{ArrayRef, Int64Array, RecordBatch, StringArray};
    use std::sync::Arc;

    #[test]
    fn rows_are_read_from_json_and_from_arrow() {
        let types = [
            ColumnType { name: "N".to_string(), scale: Some(2) },
            ColumnType { name: "S".to_string(), scale: None },
        ];
        let batch = RecordBatch::try_from_iter([
            ("N", Arc::new(Int64Array::from(vec![Some(-5), Some(1234), None])) as ArrayRef),
            ("S", Arc::new(StringArray::from(vec![Some("a"), None, Some("")])) as ArrayRef),
        ])
        .unwrap();
        let mut stream = Vec::new();
        let mut writer = arrow::ipc::writer::StreamWriter::try_new(&mut stream, &batch.schema()).unwrap();
        writer.write(&batch).unwrap();
        writer.finish().unwrap();
        let mut rows = Rows::new(&types);
        rows.extend_arrow(&types, &stream).unwrap();
        rows.extend_json(vec![vec![Some("7".into()), Some(serde_json::Value::Null)]]);
        let read: Vec<_> = (0..rows.len()).map(|r| (rows.get(r, "n"), rows.get(r, "S"))).collect();
        assert_eq!(
            read,
            [(Some("-0.05"), Some("a")), (Some("12.34"), None), (None, Some("")), (Some("7"), None)]
        );
        assert_eq!(rows.number(3, "N").unwrap(), 7);
        assert!(rows.number(2, "N").is_err());
        assert!(rows.extend_arrow(&types, b"nonsense").is_err());
    }

    #[test]
    fn credentials_are_not_printed() {
        let info: StageInfo = serde_json::from_str(
            r#"{"locationType":"S3","location":"b/p/","presignedUrl":"u","creds":{"AWS_SECRET_KEY":"hunter2"}}"#,
        )
        .unwrap();
        assert_eq!(info.creds.as_ref().unwrap().aws_secret_key.as_deref(), Some("hunter2"));
        assert_eq!(format!("{info:?}"), "StageInfo(S3 b/p/)");
    }
}
