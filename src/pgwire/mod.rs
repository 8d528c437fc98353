//! PostgreSQL's wire protocol, version 3: any client that speaks to PostgreSQL speaks to a [`crate::database::Session`].
//!
//! ```text
//! socket ─► io ─► frame ─► connection (simple) ─► Session ─► rows, copy ─► encode ─┐
//!                          extended ── params ─┘                                   ▼
//! socket ◄──────────────────────────────────────────────────────────────────── io, reply
//! ```
//! The protocol decides nothing about SQL: text goes to the session, what comes back is encoded. What the server says
//! is encoded by the `pgwire` crate; the loop over the client's messages is written here, because the crate's own
//! collects what must be streamed (COPY of a subscription, a suspended portal) and reads past malformed messages.

mod cancel;
mod connection;
mod copy;
mod encode;
mod extended;
mod frame;
mod io;
mod params;
mod reply;
mod rows;
mod server;
mod startup;

pub use server::{ServerOptions, serve};
