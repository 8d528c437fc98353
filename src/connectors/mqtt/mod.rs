//! MQTT: messages of a broker's topics become rows. A message is acknowledged when its row is durable, not before; the
//! broker keeps the session, and sends again what was not acknowledged (see [`mod@subscriber`]).

mod position;
mod settings;
mod subscriber;

use std::time::Duration;

use arrow::datatypes::SchemaRef;
use rumqttc::{AsyncClient, Event, Packet};

use super::bodies::undeclared;
use super::envelope::include::allow;
use super::envelope::{self, Declaration, Decoder};
use super::{Discovered, Envelope, Source, SourceDefinition};
use crate::error::{Error, Result, SqlState};
use settings::Settings;
use subscriber::MqttSource;

/// How long a broker may take to forget a session.
const FORGET_TIMEOUT: Duration = Duration::from_secs(10);

/// The source that a definition asks for. Touches nothing.
///
/// # Errors
/// What is wrong with the definition.
pub fn source(definition: &SourceDefinition, schema: &SchemaRef) -> Result<Box<dyn Source>> {
    if definition.envelope == Envelope::Debezium {
        return Err(Error::unsupported("ENVELOPE DEBEZIUM of a MQTT source"));
    }
    allow(definition, "MQTT", &["key", "topic", "timestamp"])?;
    let settings = Settings::new(definition)?;
    let decoder = Decoder::new(&Declaration { definition, schema, full_before_images: false })?;
    Ok(Box::new(MqttSource { settings, decoder }))
}

/// The one column that messages have when none is declared.
///
/// # Errors
/// 42601 for a format whose columns must be declared.
pub fn discover(definition: &SourceDefinition) -> Result<Vec<Discovered>> {
    undeclared(definition, "MQTT", "MQTT (url = 'mqtt://localhost', topic = 'sensors/#') FORMAT CSV")
}

/// The declared key, or, under ENVELOPE UPSERT, the topic.
///
/// # Errors
/// As of the envelope.
pub fn output_key(definition: &SourceDefinition, schema: &SchemaRef) -> Result<Vec<usize>> {
    envelope::output_key(definition, schema, false)
}

/// Has the broker forget the session of a source that was dropped.
///
/// # Errors
/// The broker's.
pub fn drop_session(definition: &SourceDefinition) -> Result<()> {
    let settings = Settings::new(definition)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let mut options = settings.options()?;
    options.set_clean_session(true);
    let forgotten = async {
        let (client, mut events) = AsyncClient::new(options, 1);
        loop {
            match events.poll().await {
                Ok(Event::Incoming(Packet::ConnAck(_))) => {
                    let asked = client.disconnect().await;
                    asked.map_err(|e| Error::new(SqlState::CONNECTION_FAILURE, e.to_string()))?;
                }
                Ok(Event::Outgoing(rumqttc::Outgoing::Disconnect)) => return Ok(()),
                Ok(_) => {}
                Err(e) => return Err(settings.lost(&e)),
            }
        }
    };
    runtime.block_on(async {
        tokio::time::timeout(FORGET_TIMEOUT, forgotten).await.unwrap_or_else(|_| {
            let message = format!("{} has not answered within {FORGET_TIMEOUT:?}", settings.shown());
            Err(Error::new(SqlState::CONNECTION_FAILURE, message))
        })
    })
}
