//! The command line: `tidemill serve`, `sql`, `check`.

// In the product a value that is not there is an error or a proof; tests may unwrap.
#![deny(clippy::unwrap_used)]

mod cli;

use std::process::ExitCode;

/// Many threads make and drop small buffers here, for which it is mimalloc; and it keeps to the memory limit.
#[global_allocator]
static ALLOCATOR: tidemill::memory::Allocator = tidemill::memory::Allocator;

fn main() -> ExitCode {
    // Every TLS connection of the process uses this implementation; it can only be chosen once.
    if rustls::crypto::ring::default_provider().install_default().is_err() {
        eprintln!("tidemill: another TLS implementation was chosen first");
    }
    match cli::run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("tidemill: {}", error.message);
            if let Some(detail) = &error.detail {
                eprintln!("DETAIL:  {detail}");
            }
            if let Some(hint) = &error.hint {
                eprintln!("HINT:  {hint}");
            }
            ExitCode::FAILURE
        }
    }
}
