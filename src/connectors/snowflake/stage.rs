//! Uploading to an internal stage: Snowflake says which cloud, we put the bytes there.
//!
//! The answer to PUT names a place and short-lived credentials. It also names local files, which are
//! ignored: what is uploaded are the bytes in hand, never a file that a server chose.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use object_store::aws::AmazonS3Builder;
use object_store::path::Path;
use object_store::{Attribute, Attributes, ObjectStore, PutOptions};
use reqwest::StatusCode;

use super::client::{Repeat, Session};
use super::wire::StageInfo;
use crate::connectors::warehouse::{Failure, Step};
use crate::error::{Error, Result, SqlState};

/// How often new credentials are asked for when those in hand have expired.
const CREDENTIALS_MAX: u32 = 3;

/// What became of an upload.
enum Sent {
    Whole,
    /// The credentials had expired before it began.
    Expired,
}

/// Puts a file into a stage. `sql` is the PUT statement that names it; `name` is the file's name in the stage.
pub fn upload(session: &mut Session, sql: &str, name: &str, bytes: &Bytes, local_allowed: bool) -> Step<()> {
    for _ in 0..CREDENTIALS_MAX {
        let data = session.execute(sql, Repeat::Harmless)?;
        if data.encryption_material.is_some_and(|m| !(m.is_null() || m.as_array().is_some_and(Vec::is_empty)))
        {
            return Err(Error::unsupported("a stage with client-side encryption")
                .with_hint("The sink makes its stage with ENCRYPTION = (TYPE = 'SNOWFLAKE_SSE'); drop the one that is there.")
                .into());
        }
        let info = data.stage_info.ok_or_else(|| {
            Error::new(SqlState::PROTOCOL_VIOLATION, "Snowflake does not say where to put the file")
        })?;
        let digest = STANDARD.encode(ring::digest::digest(&ring::digest::SHA256, bytes));
        let sent = match info.location_type.as_str() {
            "S3" => s3(session, &info, name, bytes, digest)?,
            "GCS" => gcs(session, &info, name, bytes, digest)?,
            "AZURE" => azure(session, &info, name, bytes, digest)?,
            "LOCAL_FS" if local_allowed => local(&info, name, bytes)?,
            "LOCAL_FS" => {
                return Err(Error::unsupported("a stage on this machine")
                    .with_hint("Only emulators have one; the connection's option allow_local_stage = true lets it be used.")
                    .into());
            }
            other => return Err(Error::unsupported(format!("a stage of type {other}")).into()),
        };
        if let Sent::Whole = sent {
            return Ok(());
        }
    }
    Err(Failure::retry(Error::new(
        SqlState::CONNECTION_FAILURE,
        "Snowflake's stage credentials expire at once",
    )))
}

/// Bucket or container, and the file's key in it.
fn place<'a>(info: &'a StageInfo, name: &str) -> (&'a str, String) {
    let (bucket, prefix) = info.location.split_once('/').unwrap_or((&info.location, ""));
    let slash = if prefix.is_empty() || prefix.ends_with('/') { "" } else { "/" };
    (bucket, format!("{prefix}{slash}{name}"))
}

/// The address of a cloud, or what the answer puts in its place. Without TLS only if the connection is without it, too.
fn endpoint(session: &Session, told: Option<&str>, usual: String) -> Result<String> {
    let url = match told.filter(|t| !t.is_empty()) {
        None => usual,
        Some(host) if host.contains("://") => host.trim_end_matches('/').to_string(),
        Some(host) => format!("https://{host}"),
    };
    check_tls(session, &url)?;
    Ok(url)
}

fn check_tls(session: &Session, url: &str) -> Result<()> {
    if url.starts_with("https://") || session.plain_http() {
        return Ok(());
    }
    Err(Error::new(SqlState::PROTOCOL_VIOLATION, "Snowflake names a stage without TLS"))
}

fn s3(session: &Session, info: &StageInfo, name: &str, bytes: &Bytes, digest: String) -> Step<Sent> {
    let (bucket, key) = place(info, name);
    let region = info.region.clone().filter(|r| !r.is_empty()).unwrap_or_else(|| "us-east-1".to_string());
    let mut builder = AmazonS3Builder::new()
        .with_bucket_name(bucket)
        .with_region(&region)
        .with_allow_http(session.plain_http())
        .with_retry(object_store::RetryConfig { max_retries: 4, ..Default::default() });
    if info.end_point.as_ref().is_some_and(|e| !e.is_empty()) {
        builder = builder.with_endpoint(endpoint(session, info.end_point.as_deref(), String::new())?);
    }
    if let Some(creds) = &info.creds {
        if let (Some(id), Some(secret)) = (&creds.aws_key_id, &creds.aws_secret_key) {
            builder = builder.with_access_key_id(id).with_secret_access_key(secret);
        }
        if let Some(token) = creds.aws_token.as_ref().filter(|t| !t.is_empty()) {
            builder = builder.with_token(token);
        }
    }
    let store = builder.build().map_err(|e| Error::new(SqlState::PROTOCOL_VIOLATION, e.to_string()))?;
    let mut attributes = Attributes::new();
    attributes.insert(Attribute::Metadata("sfc-digest".into()), digest.into());
    let options = PutOptions { attributes, ..Default::default() };
    let path = Path::parse(&key).map_err(|e| Error::new(SqlState::PROTOCOL_VIOLATION, e.to_string()))?;
    match session.block_on(async { store.put_opts(&path, bytes.clone().into(), options).await }) {
        Ok(_) => Ok(Sent::Whole),
        Err(e) if e.to_string().contains("ExpiredToken") => Ok(Sent::Expired),
        Err(e) => {
            // The whole chain: the cloud's own words stand in the innermost cause.
            Err(Failure::retry(Error::new(
                SqlState::CONNECTION_FAILURE,
                format!("upload to the stage failed: {e}"),
            )))
        }
    }
}

fn gcs(session: &Session, info: &StageInfo, name: &str, bytes: &Bytes, digest: String) -> Step<Sent> {
    let token = info.creds.as_ref().and_then(|c| c.gcs_access_token.as_ref()).filter(|t| !t.is_empty());
    let mut headers = vec![("x-goog-meta-sfc-digest", digest)];
    let (url, expired) = match (token, &info.presigned_url) {
        (Some(token), _) => {
            headers.push(("Authorization", format!("Bearer {token}")));
            let (bucket, key) = place(info, name);
            let usual = "https://storage.googleapis.com".to_string();
            let base = endpoint(session, info.end_point.as_deref(), usual)?;
            (format!("{base}/{bucket}/{key}"), StatusCode::UNAUTHORIZED)
        }
        (None, Some(url)) => {
            check_tls(session, url)?;
            (url.clone(), StatusCode::BAD_REQUEST)
        }
        (None, None) => {
            return Err(Error::new(
                SqlState::PROTOCOL_VIOLATION,
                "Snowflake gives no access to its GCS stage",
            )
            .into());
        }
    };
    put(session, &url, &headers, bytes, expired)
}

fn azure(session: &Session, info: &StageInfo, name: &str, bytes: &Bytes, digest: String) -> Step<Sent> {
    let sas = info.creds.as_ref().and_then(|c| c.azure_sas_token.as_deref());
    let (Some(account), Some(sas)) = (&info.storage_account, sas) else {
        return Err(
            Error::new(SqlState::PROTOCOL_VIOLATION, "Snowflake gives no access to its Azure stage").into()
        );
    };
    let (container, key) = place(info, name);
    let host = info.end_point.as_deref().filter(|e| !e.is_empty()).unwrap_or("blob.core.windows.net");
    let base = match host.contains("://") {
        true => endpoint(session, Some(host), String::new())?,
        false => format!("https://{account}.{host}"),
    };
    let url = format!("{base}/{container}/{key}?{}", sas.trim_start_matches('?'));
    let headers = [("x-ms-blob-type", "BlockBlob".to_string()), ("x-ms-meta-sfcdigest", digest)];
    put(session, &url, &headers, bytes, StatusCode::FORBIDDEN)
}

fn put(
    session: &Session,
    url: &str,
    headers: &[(&str, String)],
    bytes: &Bytes,
    expired: StatusCode,
) -> Step<Sent> {
    // Overwriting a file with the same bytes does no harm, so that a failure is simply tried again, by the caller's caller.
    match session.put(url, headers, bytes.clone()).map_err(Failure::retry)? {
        (status, _) if status.is_success() => Ok(Sent::Whole),
        (status, _) if status == expired => Ok(Sent::Expired),
        (status, body) => Err(Failure::retry(Error::new(
            SqlState::CONNECTION_FAILURE,
            format!("upload to the stage failed: HTTP {status} {body}"),
        ))),
    }
}

fn local(info: &StageInfo, name: &str, bytes: &Bytes) -> Step<Sent> {
    let directory = std::path::Path::new(&info.location);
    std::fs::create_dir_all(directory)
        .and_then(|()| std::fs::write(directory.join(name), bytes))
        .map_err(Error::from)?;
    Ok(Sent::Whole)
}
