//! HTTP: what other servers answer becomes rows. Either they are asked again and again ([`poll`]), or they send events
//! as they happen ([`events`], server-sent events).
//!
//! A poll is one transaction: all of its pages become visible together, or nothing of it does.

mod client;
mod events;
mod paging;
mod poll;
mod settings;

use arrow::datatypes::SchemaRef;

use super::bodies::{BodyDecoder, undeclared};
use super::envelope::include::allow;
use super::envelope::{self, Declaration, Decoder};
use super::{Discovered, Envelope, Source, SourceDefinition};
use crate::error::{Error, Result, SqlState};
use client::Client;
use events::EventSource;
use poll::PollSource;
use settings::{Mode, Settings, Stream};

/// The source that a definition asks for. Touches nothing.
///
/// # Errors
/// What is wrong with the definition.
pub fn source(definition: &SourceDefinition, schema: &SchemaRef) -> Result<Box<dyn Source>> {
    let settings = Settings::new(definition)?;
    let keyless = |what: &str| {
        Error::new(SqlState::INVALID_TABLE_DEFINITION, format!("{what} of a HTTP source needs a PRIMARY KEY"))
            .with_hint("Declare one: CREATE SOURCE s (id bigint PRIMARY KEY, …) FROM HTTP …")
    };
    match definition.envelope {
        Envelope::None => {}
        Envelope::Upsert if definition.key.is_empty() => return Err(keyless("ENVELOPE UPSERT")),
        Envelope::Upsert => {}
        Envelope::Debezium => return Err(Error::unsupported("ENVELOPE DEBEZIUM of a HTTP source")),
    }
    let client = Client::new(&settings.request)?;
    match settings.stream {
        Stream::Events(events) => {
            allow(definition, "HTTP event", &["key", "topic", "timestamp"])?;
            let declaration = Declaration { definition, schema, full_before_images: false };
            let decoder = Decoder::new(&declaration)?;
            Ok(Box::new(EventSource { client, settings: events, decoder }))
        }
        Stream::Polls(polls) => {
            allow(definition, "HTTP", &["path", "timestamp", "headers"])?;
            let bodies = BodyDecoder::new(definition, schema, "HTTP")?;
            if polls.mode == Mode::Snapshot && definition.key.is_empty() {
                return Err(keyless("mode = 'snapshot'"));
            }
            Ok(Box::new(PollSource {
                client,
                settings: polls,
                bodies,
                is_keyed: !definition.key.is_empty(),
                is_timeless: definition.includes.is_empty(),
            }))
        }
    }
}

/// The one column that answers have when none is declared.
///
/// # Errors
/// 42601 for a format whose columns must be declared.
pub fn discover(definition: &SourceDefinition) -> Result<Vec<Discovered>> {
    undeclared(definition, "HTTP", "HTTP (url = 'https://api.example.com/orders') FORMAT CSV")
}

/// What decodes single records of bodies.
///
/// # Errors
/// What is wrong with the definition.
pub fn decoder(definition: &SourceDefinition, schema: &SchemaRef) -> Result<Decoder> {
    Ok(BodyDecoder::new(definition, schema, "HTTP")?.into_decoder())
}

/// The declared key.
///
/// # Errors
/// As of the envelope.
pub fn output_key(definition: &SourceDefinition, schema: &SchemaRef) -> Result<Vec<usize>> {
    envelope::output_key(definition, schema, false)
}
