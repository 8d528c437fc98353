//! The fuzzer over fixed seeds: no view differs from its query, and no query from PostgreSQL.

mod common;

use std::process::Command;

use common::postgres::Postgres;

/// Runs the fuzzer; the number that stands before `what` in its totals.
fn fuzz(arguments: &[&str], what: &str) -> u64 {
    let output = Command::new(env!("CARGO_BIN_EXE_tidemill")).arg("fuzz").args(arguments).output();
    let output = output.expect("the fuzzer runs");
    let (told, errors) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{told}\n{errors}");
    let line = told.lines().find(|l| l.ends_with(what)).unwrap_or_else(|| panic!("no {what} in:\n{told}"));
    let number = line.split(' ').next().and_then(|n| n.parse().ok());
    number.unwrap_or_else(|| panic!("no number in: {line}"))
}

#[test]
fn views_are_their_queries() {
    let compared = fuzz(&["--seed", "1", "--databases", "20"], "query-ticks compared with batch");
    assert!(compared > 1_000, "only {compared}");
}

#[test]
fn queries_answer_as_in_postgresql() {
    let postgres = Postgres::start();
    let url = format!("postgresql://postgres@127.0.0.1:{}/postgres", postgres.port);
    let arguments = ["--seed", "1001", "--databases", "12", "--postgres", &url];
    let compared = fuzz(&arguments, "query-ticks compared with PostgreSQL");
    assert!(compared > 800, "only {compared}");
}
