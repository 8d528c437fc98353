//! From the mailbox to durable rows: all bodies that wait become one tick.

use std::sync::Arc;
use std::time::Duration;

use super::bodies::Shape;
use super::mailbox::{Letter, Mailbox, Taken};
use crate::connectors::envelope::{Decoder, Record};
use crate::connectors::{BadRecord, Source, SourceBatch, SourceContext};
use crate::error::{Error, Result};
use crate::world;

/// How long to wait for a body before looking whether to stop.
const POLL: Duration = Duration::from_millis(100);

/// A source of posted bodies.
pub(super) struct WebhookSource {
    pub mailbox: Arc<Mailbox>,
    pub shape: Shape,
    pub decoder: Decoder,
}

impl WebhookSource {
    /// Decodes a body's records; what they become waits in the decoder.
    fn decode(&mut self, letter: &Letter, bad: &mut Vec<BadRecord>) -> Taken {
        let (rows, errors) = (self.decoder.pending(), bad.len());
        let cut = self.shape.records(&letter.body);
        let mut refuse = |raw: &[u8], n: usize, sqlstate, reason| {
            let position = format!("record={n}");
            bad.push(BadRecord { sqlstate, reason, raw: Some(raw.to_vec()), position });
        };
        if let Some(header) = cut.header
            && let Err(why) = self.decoder.set_header(header)
        {
            refuse(&letter.body, 0, why.sqlstate.0, why.reason);
            return Taken { rows: 0, errors: 1 };
        }
        for (n, value) in cut.records.iter().enumerate() {
            let record = Record {
                value: Some(value),
                timestamp_micros: Some(letter.at_micros),
                headers: Some(&letter.headers),
                ..Record::default()
            };
            if let Err(why) = self.decoder.push(&record) {
                refuse(value, n + 1, why.sqlstate.0, why.reason);
            }
        }
        Taken { rows: (self.decoder.pending() - rows) as u64, errors: (bad.len() - errors) as u64 }
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
            let rows = self.decoder.pending() as u64;
            if rows + bad_records > 0 {
                let changes = self.decoder.take()?.into_iter().map(|c| (output.collection, c)).collect();
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
