//! WEBHOOK: bodies that are posted to the server's HTTP port become rows.
//!
//! Whoever takes the requests puts each body into the source's [`mailbox`]; the source takes all that wait there,
//! makes one tick of them, and answers when that is durable. Nothing is acknowledged before. As a destination, changes
//! are posted to somebody else's server: [`sink`](mod@sink).

pub mod mailbox;
pub mod sink;
mod source;

use std::sync::Arc;

use arrow::datatypes::SchemaRef;

use crate::connectors::bodies::{BodyDecoder, undeclared};
use crate::connectors::envelope::include::allow;
use crate::connectors::envelope::{self, Decoder};
use crate::connectors::{Discovered, Envelope, Options, Source, SourceDefinition};
use crate::error::{Error, Result, SqlState};
use mailbox::{Limits, Mailbox};
use source::WebhookSource;

/// A body has no more bytes than this unless the option `body.limit` says otherwise.
const BODY_BYTES: usize = 1 << 20;
/// Bodies that wait have no more bytes than this, all together, unless the option `queue.limit` says otherwise.
const QUEUE_BYTES: usize = 64 << 20;
/// The most that either may be told.
const BYTES_MAX: usize = 1 << 30;

/// Options `body.limit` and `queue.limit`, in bytes.
///
/// # Errors
/// 22023 for what they cannot be.
pub fn limits(definition: &SourceDefinition) -> Result<Limits> {
    let mut options = Options::new("a WEBHOOK source", definition.options.clone());
    let mut bytes = |name: &'static str, default: usize| match options.parse(name, "a number of bytes")? {
        None => Ok(default),
        Some(n) if (1..=BYTES_MAX).contains(&n) => Ok(n),
        Some(n) => Err(Error::new(
            SqlState::INVALID_PARAMETER_VALUE,
            format!("option \"{name}\" of a WEBHOOK source must be 1 to {BYTES_MAX} bytes, not {n}"),
        )),
    };
    let body = bytes("body.limit", BODY_BYTES)?;
    let queue = bytes("queue.limit", QUEUE_BYTES.max(body))?;
    options.finish()?;
    if queue < body {
        return Err(Error::new(
            SqlState::INVALID_PARAMETER_VALUE,
            "option \"queue.limit\" of a WEBHOOK source must not be less than \"body.limit\"",
        ));
    }
    Ok(Limits { body, queue })
}

/// The source that a definition asks for, with a mailbox that nobody knows of: checks the definition.
///
/// # Errors
/// What is wrong with the definition.
pub fn source(definition: &SourceDefinition, schema: &SchemaRef) -> Result<Box<dyn Source>> {
    let mailbox = Mailbox::new(limits(definition)?);
    source_of(definition, schema, &mailbox)
}

/// The source that reads what comes into `mailbox`.
///
/// # Errors
/// What is wrong with the definition.
pub fn source_of(
    definition: &SourceDefinition,
    schema: &SchemaRef,
    mailbox: &Arc<Mailbox>,
) -> Result<Box<dyn Source>> {
    if definition.envelope != Envelope::None {
        return Err(Error::unsupported("an ENVELOPE of a WEBHOOK source"));
    }
    allow(definition, "WEBHOOK", &["timestamp", "headers"])?;
    let bodies = BodyDecoder::new(definition, schema, "WEBHOOK")?;
    Ok(Box::new(WebhookSource { mailbox: Arc::clone(mailbox), bodies }))
}

/// The one column that bodies have when none is declared.
///
/// # Errors
/// 42601 for a format whose columns must be declared.
pub fn discover(definition: &SourceDefinition) -> Result<Vec<Discovered>> {
    undeclared(definition, "WEBHOOK", "WEBHOOK FORMAT CSV")
}

/// What decodes single records of bodies.
///
/// # Errors
/// What is wrong with the definition.
pub fn decoder(definition: &SourceDefinition, schema: &SchemaRef) -> Result<Decoder> {
    Ok(BodyDecoder::new(definition, schema, "WEBHOOK")?.into_decoder())
}

/// The declared key.
///
/// # Errors
/// As of the envelope.
pub fn output_key(definition: &SourceDefinition, schema: &SchemaRef) -> Result<Vec<usize>> {
    envelope::output_key(definition, schema, false)
}
