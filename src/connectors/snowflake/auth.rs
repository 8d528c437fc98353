//! Who we are to Snowflake: account and user names, and key-pair tokens.
//!
//! A key-pair token is a JWT signed with RS256 that lives for a minute. Snowflake refuses one that
//! arrives more than a minute after it was made, so each attempt to log in makes its own. Where this machine's clock is
//! wrong, tokens go by Snowflake's, which every answer tells.

use std::fmt;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use reqwest::header::{DATE, HeaderMap};
use ring::rand::SystemRandom;
use ring::rsa::KeyPair;
use ring::signature::{KeyPair as _, RSA_PKCS1_SHA256};

use crate::error::{Error, Result, SqlState};
use crate::world;

/// A value that is never printed.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Hides a value.
    pub fn new(value: impl Into<String>) -> Self {
        Secret(value.into())
    }

    /// The value, for the one place that sends it.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[redacted]")
    }
}

/// How the user proves who they are.
#[derive(Debug)]
pub enum Credentials {
    /// A password, or a programmatic access token in its place.
    Password(Secret),
    /// An RSA key whose public half is registered with the user.
    KeyPair(Box<PrivateKey>),
}

/// An RSA private key.
#[derive(Clone)]
pub struct PrivateKey {
    pair: Arc<KeyPair>,
    /// SHA-256 of the public key, base64: how Snowflake names it.
    fingerprint: String,
}

impl fmt::Debug for PrivateKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PrivateKey(SHA256:{})", self.fingerprint)
    }
}

impl PrivateKey {
    /// Reads an unencrypted PEM key, PKCS#8 or PKCS#1.
    pub fn from_pem(pem: &str) -> Result<Self> {
        let wrong = |what: &str| {
            Error::new(SqlState::INVALID_PARAMETER_VALUE, format!("option \"private_key\" {what}")).with_hint(
                "It must be an RSA key of at least 2048 bits, as from: openssl genrsa 2048 | openssl pkcs8 -topk8 -nocrypt",
            )
        };
        // Keys pasted into one line come with written-out line ends.
        let pem = pem.replace("\\n", "\n");
        let (label, der) = decode_pem(&pem).ok_or_else(|| wrong("is no PEM text"))?;
        let pair = match label {
            "PRIVATE KEY" => KeyPair::from_pkcs8(&der),
            "RSA PRIVATE KEY" => KeyPair::from_der(&der),
            "ENCRYPTED PRIVATE KEY" => {
                return Err(Error::unsupported("an encrypted private key of Snowflake"));
            }
            _ => return Err(wrong("holds no private key")),
        };
        let pair = pair.map_err(|e| wrong(&format!("holds no usable RSA key: {e}")))?;
        let public = public_key_der(pair.public_key().as_ref());
        let digest = ring::digest::digest(&ring::digest::SHA256, &public);
        Ok(PrivateKey { fingerprint: STANDARD.encode(digest), pair: Arc::new(pair) })
    }

    /// A token for one attempt to log in. `ahead`: by how many seconds Snowflake's clock is ahead of this machine's.
    pub fn token(&self, account: &str, user: &str, ahead: i64) -> Result<Secret> {
        let subject = format!("{}.{}", account_name(account), user.to_uppercase());
        let now = world::now_micros() / 1_000_000 + ahead;
        let claims = serde_json::json!({
            "iss": format!("{subject}.SHA256:{}", self.fingerprint),
            "sub": subject,
            "iat": now,
            "exp": now + 60,
        });
        let header = URL_SAFE_NO_PAD.encode(r#"{"alg":"RS256","typ":"JWT"}"#);
        let signed = format!("{header}.{}", URL_SAFE_NO_PAD.encode(claims.to_string()));
        let mut signature = vec![0; self.pair.public().modulus_len()];
        self.pair
            .sign(&RSA_PKCS1_SHA256, &SystemRandom::new(), signed.as_bytes(), &mut signature)
            .map_err(|_| Error::internal("signing with the private key failed"))?;
        Ok(Secret::new(format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature))))
    }
}

/// Clocks that differ by less than this many seconds do not make a token invalid.
const SKEW_SECONDS: i64 = 20;

/// By how many seconds the clock of whoever sent these headers is ahead of this machine's, if that is so much that a
/// token made `ahead` before can have been refused for it.
pub fn clock_ahead(headers: &HeaderMap, ahead: i64) -> Option<i64> {
    let date = headers.get(DATE)?.to_str().ok()?;
    let theirs = chrono::DateTime::parse_from_rfc2822(date).ok()?.timestamp();
    let found = theirs - world::now_micros() / 1_000_000;
    ((found - ahead).abs() > SKEW_SECONDS).then_some(found)
}

/// The account as it stands in tokens: upper case, without region.
fn account_name(account: &str) -> String {
    let upper = account.to_uppercase();
    let name = match upper.split_once(".GLOBAL") {
        Some((with_region, _)) => with_region.rsplit_once('-').map_or(with_region, |(name, _)| name),
        None => upper.split('.').next().unwrap_or_default(),
    };
    name.to_string()
}

/// The account as it stands in the login request: as in tokens.
pub fn login_account(account: &str) -> String {
    account_name(account)
}

/// The host that serves an account.
pub fn account_host(account: &str) -> String {
    let account = account.to_lowercase().replace('_', "-");
    let domain = match account.split_once('.') {
        Some((_, region)) if region.starts_with("cn-") => "snowflakecomputing.cn",
        _ => "snowflakecomputing.com",
    };
    format!("{account}.{domain}")
}

fn decode_pem(pem: &str) -> Option<(&str, Vec<u8>)> {
    let (_, rest) = pem.split_once("-----BEGIN ")?;
    let (label, rest) = rest.split_once("-----")?;
    let (body, _) = rest.split_once("-----END ")?;
    let body: String = body.chars().filter(|c| !c.is_whitespace()).collect();
    Some((label, STANDARD.decode(body).ok()?))
}

/// The SubjectPublicKeyInfo around a PKCS#1 public key.
fn public_key_der(pkcs1: &[u8]) -> Vec<u8> {
    /// SEQUENCE { OBJECT IDENTIFIER rsaEncryption, NULL }
    const ALGORITHM: [u8; 15] =
        [0x30, 0x0d, 0x06, 0x09, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x01, 0x05, 0x00];
    let mut bits = vec![0];
    bits.extend_from_slice(pkcs1);
    let mut body = ALGORITHM.to_vec();
    body.extend(der_value(0x03, &bits));
    der_value(0x30, &body)
}

fn der_value(tag: u8, body: &[u8]) -> Vec<u8> {
    let mut out = vec![tag];
    match body.len() {
        short @ 0..0x80 => out.push(short as u8),
        long => {
            let bytes = long.to_be_bytes();
            let digits = &bytes[bytes.iter().position(|b| *b != 0).unwrap_or(0)..];
            out.push(0x80 | digits.len() as u8);
            out.extend_from_slice(digits);
        }
    }
    out.extend_from_slice(body);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = include_str!("../../../tests/support/snowflake_key.pem");
    /// `openssl rsa -in snowflake_key.pem -pubout -outform DER | openssl dgst -sha256 -binary | base64`
    const FINGERPRINT: &str = "rLUkEBBB5+xH6I+V8T2JN30qzd0k50mZM4Bfi5ZGXhs=";

    #[test]
    fn a_token_says_who_and_is_signed() {
        let key = PrivateKey::from_pem(KEY).unwrap();
        assert_eq!(key.fingerprint, FINGERPRINT);
        let token = key.token("myorg-acct.eu-central-1", "Loader", 0).unwrap();
        let parts: Vec<&str> = token.reveal().split('.').collect();
        let claims: serde_json::Value =
            serde_json::from_slice(&URL_SAFE_NO_PAD.decode(parts[1]).unwrap()).unwrap();
        assert_eq!(claims["sub"], "MYORG-ACCT.LOADER");
        assert_eq!(claims["iss"], format!("MYORG-ACCT.LOADER.SHA256:{FINGERPRINT}"));
        assert_eq!(claims["exp"].as_i64().unwrap() - claims["iat"].as_i64().unwrap(), 60);

        let public = key.pair.public_key().as_ref();
        let verifier =
            ring::signature::UnparsedPublicKey::new(&ring::signature::RSA_PKCS1_2048_8192_SHA256, public);
        let signature = URL_SAFE_NO_PAD.decode(parts[2]).unwrap();
        verifier.verify(format!("{}.{}", parts[0], parts[1]).as_bytes(), &signature).unwrap();
    }

    #[test]
    fn a_clock_that_is_wrong_is_noticed() {
        let at = |seconds: i64| {
            let then =
                chrono::DateTime::from_timestamp(world::now_micros() / 1_000_000 + seconds, 0).unwrap();
            let date = then.format("%a, %d %b %Y %H:%M:%S GMT").to_string();
            HeaderMap::from_iter([(DATE, date.parse().unwrap())])
        };
        let hour = clock_ahead(&at(3_600), 0).unwrap();
        assert!((3_598..=3_600).contains(&hour), "{hour}");
        assert_eq!(clock_ahead(&at(3_600), hour), None);
        assert!(clock_ahead(&at(-90), 0).unwrap() < -80);
        assert_eq!(clock_ahead(&at(5), 0), None);
        assert_eq!(clock_ahead(&HeaderMap::new(), 0), None);
    }

    #[test]
    fn keys_in_one_line_and_wrong_keys() {
        assert!(PrivateKey::from_pem(&KEY.replace('\n', "\\n")).is_ok());
        for (text, state) in [
            ("hunter2", SqlState::INVALID_PARAMETER_VALUE),
            (
                "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----",
                SqlState::INVALID_PARAMETER_VALUE,
            ),
            ("-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END X", SqlState::FEATURE_NOT_SUPPORTED),
        ] {
            let e = PrivateKey::from_pem(text).unwrap_err();
            assert_eq!(e.sqlstate, state);
            assert!(!e.to_string().contains(text));
        }
    }

    #[test]
    fn accounts() {
        assert_eq!(account_name("xy12345.eu-central-1"), "XY12345");
        assert_eq!(account_name("xy12345-abc.global"), "XY12345");
        assert_eq!(account_name("my_org-my_acct"), "MY_ORG-MY_ACCT");
        assert_eq!(account_host("My_Org-Acct"), "my-org-acct.snowflakecomputing.com");
        assert_eq!(account_host("xy1.cn-northwest-1"), "xy1.cn-northwest-1.snowflakecomputing.cn");
    }

    #[test]
    fn secrets_are_not_printed() {
        assert_eq!(format!("{:?}", Credentials::Password(Secret::new("hunter2"))), "Password([redacted])");
        assert!(!format!("{:?}", PrivateKey::from_pem(KEY).unwrap()).contains("MII"));
    }
}
