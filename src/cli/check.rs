//! `tidemill check`: is a data directory whole, and is every view what its query says?

use tidemill::database::{Database, Outcome, SessionOptions};
use tidemill::sql::ObjectKind;
use tidemill::{Config, Error, Result, SqlState, world};

use super::serve::log;

/// Opens the directory, checks every materialized view, prints a line for each.
pub fn run(config: Config) -> Result<()> {
    log(&config);
    if !config.data_dir.is_dir() {
        return Err(Error::new(
            SqlState::IO_ERROR,
            format!("there is no data directory {}", config.data_dir.display()),
        ));
    }
    let checking =
        std::thread::Builder::new().stack_size(world::PLANNING_STACK).spawn(move || views(&config))?;
    checking.join().unwrap_or_else(|_| Err(Error::internal("the check panicked")))
}

fn views(config: &Config) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let database = Database::open(config)?;
    let catalog = database.catalog();
    let views: Vec<(String, String)> = catalog
        .of_kind(ObjectKind::MaterializedView)
        .iter()
        .map(|e| (catalog.full_name(e), catalog.qualified(e).to_string()))
        .collect();
    let mut wrong = 0;
    runtime.block_on(async {
        let mut session = database.session(SessionOptions::default());
        for (view, name) in &views {
            let statement = format!("CHECK MATERIALIZED VIEW {name}");
            match session.simple(&statement).await {
                Ok(Some(Outcome::Done { .. })) => println!("{view}: ok"),
                Ok(_) => println!("{view}: no answer"),
                Err(error) => {
                    wrong += 1;
                    println!("{view}: {error}");
                }
            }
        }
    });
    database.shutdown();
    println!("{} views checked, {wrong} wrong", views.len());
    match wrong {
        0 => Ok(()),
        _ => Err(Error::new(SqlState::DATA_CORRUPTED, format!("{wrong} of {} views are wrong", views.len()))),
    }
}
