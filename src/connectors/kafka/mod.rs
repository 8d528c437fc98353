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
mod settings;
pub mod shop;
mod sink;
mod source;

use std::time::Duration;

use arrow::datatypes::SchemaRef;
use rdkafka::consumer::{BaseConsumer, Consumer};

use crate::connectors::envelope::{self, Declaration, Decoder, infer};
use crate::connectors::{Discovered, Sink, SinkDefinition, Source, SourceDefinition};
use crate::error::Result;
use settings::{ClientSettings, SinkSettings, SourceSettings};

/// How long a broker may take to answer when a connection is checked.
const VALIDATE_TIMEOUT: Duration = Duration::from_secs(5);

/// Asks a broker for the cluster's metadata.
///
/// # Errors
/// 08006 when none answers; 22023 and 0A000 for options.
pub fn validate_connection(options: Vec<(String, String)>) -> Result<()> {
    let settings = ClientSettings::of_connection(options)?;
    let consumer: BaseConsumer = settings.config().create().map_err(|e| settings.error("connect to", &e))?;
    match consumer.fetch_metadata(None, VALIDATE_TIMEOUT) {
        Ok(_) => Ok(()),
        Err(e) => Err(settings.error("reach", &e)),
    }
}

/// A source of records of one topic or several. All of the definition is checked; nothing is asked of a broker.
///
/// # Errors
/// What is wrong with the definition.
pub fn source(definition: &SourceDefinition, schema: &SchemaRef) -> Result<Box<dyn Source>> {
    let settings = SourceSettings::new(definition)?;
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
