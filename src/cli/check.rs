//! `tidemill check`: is every file of a data directory whole, and is every view what its query says?

use tidemill::database::{Database, Outcome, SessionOptions};
use tidemill::engine::inspect;
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

/// Prints a line for each file of the journal; an error names the one without which a server would not start.
fn files(config: &Config) -> Result<()> {
    let journal = config.data_dir.join("journal");
    if !journal.is_dir() {
        return Ok(());
    }
    let files = inspect::inspect(&journal, config.workers)?;
    for file in &files {
        let without = match (file.condition, file.harmless) {
            (inspect::Condition::Sound, _) => "",
            (_, true) => " (a start does without it)",
            (_, false) => " (acknowledged rows are lost with it)",
        };
        println!("{}: {}{without}", file.path.display(), file.condition);
    }
    inspect::refuse(&files).map_err(|error| {
        let sound = files.iter().filter(|f| f.condition == inspect::Condition::Sound).map(|f| f.tick).max();
        error
            .with_detail(format!("The last tick that a sound file tells of is {}.", sound.unwrap_or(0)))
            .with_hint("Bring the directory back from a copy.")
    })
}

fn views(config: &Config) -> Result<()> {
    files(config)?;
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
