//! What several test binaries share. Each binary uses its own part of it.
#![allow(dead_code)]

pub mod debezium;
pub mod fakesnow;
pub mod kafka;
pub mod mariadb;
pub mod mosquitto;
pub mod pgclient;
pub mod postgres;
pub mod process;
pub mod receiver;
pub mod redshift;
pub mod registry;
pub mod s3;
pub mod server;

use std::time::{Duration, Instant};

/// Waits until a query gives these rows.
pub fn until(server: &process::Tidemill, sql: &str, expected: &[&[&str]]) {
    let start = Instant::now();
    loop {
        let rows = server.rows(sql);
        if rows == expected {
            return;
        }
        let sources = || server.rows("SELECT name, status, error FROM tidemill.sources");
        assert!(start.elapsed() < Duration::from_secs(60), "{sql}: {rows:?}\n{:?}", sources());
        std::thread::sleep(Duration::from_millis(50));
    }
}
