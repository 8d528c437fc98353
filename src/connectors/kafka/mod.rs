//! Apache Kafka: topics as sources and as destinations.
//!
//! `source` reads partitions from offsets that Tidemill itself keeps (no consumer group decides anything);
//! `sink` writes exactly once, by transactions that carry the data and how far it goes. `mock` and `shop` are a broker in
//! this process and something lively in it, for the quickstart and for tests.

mod client;
pub mod mock;
mod position;
mod progress;
mod records;
mod schemas;
mod settings;
pub mod shop;
mod sink;
mod source;

use std::time::Duration;

use arrow::datatypes::SchemaRef;
use client::TrialContext;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::RDKafkaErrorCode;

use crate::connectors::envelope::include::allow;
use crate::connectors::envelope::{self, Declaration, Decoder, infer};
use crate::connectors::{Discovered, Sink, SinkDefinition, Source, SourceDefinition};
use crate::error::{Error, Result, SqlState};
use crate::world;
use settings::{ClientSettings, SinkSettings, SourceSettings};

/// How long a broker may take to answer when a connection is checked.
const VALIDATE_TIMEOUT: Duration = Duration::from_secs(5);

/// Asks a broker for the cluster's metadata.
///
/// # Errors
/// 08006 when none answers; 28000 when they refuse the user; 22023 and 0A000 for options.
pub fn validate_connection(options: Vec<(String, String)>) -> Result<()> {
    let settings = ClientSettings::of_connection(options)?;
    let context = TrialContext::default();
    let consumer: BaseConsumer<TrialContext> =
        settings.config().create_with_context(context).map_err(|e| settings.error("connect to", &e))?;
    let began = world::instant();
    loop {
        let Err(e) = consumer.fetch_metadata(None, VALIDATE_TIMEOUT / 10) else { return Ok(()) };
        // Nothing is read: this lets the client say what is wrong, behind whatever it logs.
        while consumer.poll(VALIDATE_TIMEOUT / 50).is_some() && began.elapsed() < VALIDATE_TIMEOUT {}
        match consumer.context().failure() {
            Some((RDKafkaErrorCode::Authentication, why)) => {
                let message = format!("Kafka at {} refused the login: {why}", settings.brokers);
                return Err(Error::new(SqlState::INVALID_AUTHORIZATION, message));
            }
            // A certificate does not get better by waiting.
            Some((RDKafkaErrorCode::SSL, why)) => return Err(settings.unreachable(&why)),
            Some((_, why)) if began.elapsed() >= VALIDATE_TIMEOUT => return Err(settings.unreachable(&why)),
            None if began.elapsed() >= VALIDATE_TIMEOUT => return Err(settings.error("reach", &e)),
            _ => (),
        }
    }
}

/// A source of records of one topic or several. All of the definition is checked; nothing is asked of a broker.
///
/// # Errors
/// What is wrong with the definition.
pub fn source(definition: &SourceDefinition, schema: &SchemaRef) -> Result<Box<dyn Source>> {
    let settings = SourceSettings::new(definition)?;
    let known = ["key", "topic", "partition", "offset", "timestamp", "headers"];
    allow(definition, "KAFKA", &known)?;
    let decoder =
        Decoder::new(&Declaration { definition, schema, full_before_images: settings.full_before_images })?;
    Ok(Box::new(source::KafkaSource::new(settings, decoder)))
}

/// The columns of a topic's records, where their format has a schema that tells.
///
/// # Errors
/// 42601 when it has none; what the registry says.
pub fn discover(definition: &SourceDefinition) -> Result<Vec<Discovered>> {
    let settings = SourceSettings::new(definition)?;
    let found = infer::columns(definition, settings.topics.only())?;
    Ok(vec![Discovered { upstream: definition.name.clone(), ..found }])
}

/// The positions of the columns that rows are told apart by; empty: rows have no key.
///
/// # Errors
/// 42P16 when the envelope needs a key and the definition has none.
pub fn output_key(definition: &SourceDefinition, schema: &SchemaRef) -> Result<Vec<usize>> {
    let settings = SourceSettings::new(definition)?;
    envelope::output_key(definition, schema, settings.full_before_images)
}

/// A sink into a topic. All of the definition is checked; nothing is asked of a broker.
///
/// # Errors
/// What is wrong with the definition.
pub fn sink(definition: &SinkDefinition, schema: &SchemaRef, key: &[usize]) -> Result<Box<dyn Sink>> {
    let settings = SinkSettings::new(definition, key)?;
    sink::KafkaSink::new(settings, schema).map(|s| Box::new(s) as Box<dyn Sink>)
}

#[cfg(test)]
mod tests;
