//! From the mailbox to durable rows: all bodies that wait become one tick.

use std::sync::Arc;
use std::time::Duration;

use super::mailbox::{Letter, Mailbox, Taken};
use crate::connectors::bodies::BodyDecoder;
use crate::connectors::envelope::Record;
use crate::connectors::{BadRecord, Source, SourceBatch, SourceContext};
use crate::error::{Error, Result};
use crate::world;

/// How long to wait for a body before looking whether to stop.
const POLL: Duration = Duration::from_millis(100);

/// A source of posted bodies.
pub(super) struct WebhookSource {
    pub mailbox: Arc<Mailbox>,
    pub bodies: BodyDecoder,
}

impl WebhookSource {
    /// Decodes a body's records; what they become waits in the decoder.
    fn decode(&mut self, letter: &Letter, bad: &mut Vec<BadRecord>) -> Taken {
        let of = Record {
            timestamp_micros: Some(letter.at_micros),
            headers: Some(&letter.headers),
            ..Record::default()
        };
        let counts = self.bodies.decode(&letter.body, &of, |n| format!("record={n}"), bad);
        Taken { rows: counts.rows, errors: counts.bad }
    }
}

impl Source for WebhookSource {
    fn run(mut self: Box<Self>, cx: SourceContext) -> Result<()> {
        let [output] = &cx.outputs[..] else {
            return Err(Error::internal("a WEBHOOK source fills exactly one collection"));
        };
        let mailbox = Arc::clone(&self.mailbox);
        let _open = mailbox.open();
        cx.status.update(|s| {
            s.state = "running";
            s.error = None;
        });
        while !cx.stop.is_set() {
            let letters = mailbox.take(POLL);
            if letters.is_empty() {
                continue;
            }
            let mut bad = Vec::new();
            let taken: Vec<Taken> = letters.iter().map(|letter| self.decode(letter, &mut bad)).collect();
            let bad_records = bad.len() as u64;
            let rows = self.bodies.decoder().pending() as u64;
            if rows + bad_records > 0 {
                let changes =
                    self.bodies.decoder().take()?.into_iter().map(|c| (output.collection, c)).collect();
                let tick = cx.feed.submit(SourceBatch { changes, bad, ..SourceBatch::default() })?;
                cx.feed.wait_durable(tick)?;
            }
            world::crash_point("webhook.durable");
            cx.status.update(|s| {
                s.rows += rows;
                s.bytes += letters.iter().map(|l| l.body.len() as u64).sum::<u64>();
                s.bad_records += bad_records;
                s.event_time_micros = letters.iter().map(|l| l.at_micros).max();
            });
            letters.into_iter().zip(taken).for_each(|(letter, taken)| letter.answer(taken));
        }
        Ok(())
    }
}
