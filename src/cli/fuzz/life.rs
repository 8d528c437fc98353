//! The life of one database: tables, views that come and go, ticks; every view compared after each.

use std::sync::Arc;

use parking_lot::Mutex;
use tokio::runtime::Runtime;

use tidemill::{Result, world};

use super::Told;
use super::bench::{Bench, Done};
use super::dice::Dice;
use super::history;
use super::on_close;
use super::postgres::Postgres;
use super::query::{Queries, Relation, Style};
use super::schema::Table;
use super::script::Step;
use super::totals::Totals;

/// Views that one database has at once.
const VIEWS_MAX: usize = 10;

/// What a life is at, for whoever waits for it.
pub struct Watch {
    /// Steps so far, the one in hand last, and when it began.
    pub at: Mutex<(Vec<Step>, std::time::Instant)>,
}

impl Watch {
    /// Nothing was begun.
    pub fn new() -> Arc<Watch> {
        Arc::new(Watch { at: Mutex::new((Vec::new(), world::instant())) })
    }
}

/// What came of a life.
pub struct Life {
    pub totals: Totals,
    /// What was found, each with the steps that lead to it.
    pub found: Vec<Told>,
}

/// Lives the life of a seed.
pub fn live(seed: u64, runtime: &Runtime, postgres: Option<&Postgres>, watch: &Watch) -> Result<Life> {
    let mut dice = Dice::new(seed);
    let portable = postgres.is_some() || dice.chance(25);
    let bulk = dice.chance(6).then(|| *dice.pick(&[1_000, 3_000, 10_000, 100_000]));
    let nest = if bulk.is_some() { 0 } else { dice.weighted(&[25, 45, 30]) as u32 };
    let style = Style { portable, fails: !portable && dice.chance(10), nest };
    let mut tables: Vec<Table> =
        (1..=1 + dice.weighted(&[25, 50, 25])).map(|n| Table::random(&format!("t{n}"), &mut dice)).collect();
    if !portable {
        for table in &mut tables {
            table.delay = on_close::delay(&mut dice, &table.columns).filter(|_| dice.chance(70));
        }
    }
    let mut world = World {
        bench: Bench::open(runtime, postgres)?,
        watch,
        steps: Vec::new(),
        views: Vec::new(),
        named: 0,
        spoilt: false,
        life: Life { totals: Totals { databases: 1, ..Totals::default() }, found: Vec::new() },
    };
    for table in &tables {
        world.step(Step::Table(table.create()));
    }
    let ticks = 4 + dice.below(10);
    let large = dice.below(ticks);
    for tick in 0..ticks {
        for _ in 0..dice.weighted(&[25, 35, 20, 20]) {
            world.view(&mut dice, style, &tables, bulk);
        }
        if dice.chance(8) {
            world.drop_view(&mut dice);
        }
        if dice.chance(12) {
            world.step(Step::Restart);
        }
        let bulk = bulk.filter(|_| tick == large || dice.chance(20));
        let writes = history::transaction(&mut dice, style, &tables, bulk);
        world.life.totals.ticks += 1;
        world.step(Step::Tick(writes));
        if world.spoilt {
            break;
        }
    }
    let World { bench, mut life, .. } = world;
    life.totals.compared = bench.compared;
    life.totals.compared_with_postgres = bench.compared_with_postgres;
    Ok(life)
}

struct World<'a> {
    bench: Bench<'a>,
    watch: &'a Watch,
    /// What has been done so far.
    steps: Vec<Step>,
    views: Vec<View>,
    /// Names given so far.
    named: usize,
    /// A view differs, and would at every step.
    spoilt: bool,
    life: Life,
}

struct View {
    relation: Relation,
    materialized: bool,
    /// Whether another view reads it.
    read: bool,
}

impl World<'_> {
    /// Does a step; false: it was not done.
    fn step(&mut self, step: Step) -> bool {
        if self.spoilt {
            return false;
        }
        let is_view = matches!(step, Step::View { .. });
        self.steps.push(step.clone());
        *self.watch.at.lock() = (self.steps.clone(), world::instant());
        match self.bench.step(&step) {
            Done::Well => return true,
            Done::Refused(reason) => self.life.totals.refuse(&reason),
            Done::Foreign(reason) => self.life.totals.reject(&reason),
            Done::Failed => self.life.totals.failed_statements += 1,
            Done::Found(finding) => {
                // A view that cannot be created leaves the rest as it was.
                self.spoilt = !(is_view && finding.is_error());
                self.life.found.push((finding, self.steps.clone()));
            }
        }
        self.steps.pop();
        false
    }

    fn view(&mut self, dice: &mut Dice, style: Style, tables: &[Table], bulk: Option<usize>) {
        if self.views.len() >= VIEWS_MAX {
            return;
        }
        let rows = bulk.map_or(15.0, |rows| rows as f64);
        let mut relations: Vec<Relation> = Vec::new();
        for table in tables {
            let columns = table.columns.iter().map(|c| (c.name.clone(), c.ty)).collect();
            let relation = Relation { name: table.name.clone(), columns, rows };
            // Tables more often than views.
            relations.extend([relation.clone(), relation.clone(), relation]);
        }
        relations.extend(self.views.iter().map(|v| v.relation.clone()).filter(|r| r.rows < 2_000.0));
        let table = dice.pick(tables);
        let closing = on_close::query(dice, table).filter(|_| dice.chance(25));
        let final_rows = closing.is_some();
        let query = closing.unwrap_or_else(|| Queries::new(dice, style, relations).top());
        self.named += 1;
        let (name, materialized) = (format!("v{}", self.named), final_rows || dice.chance(85));
        let step = Step::View { name: name.clone(), materialized, query: query.sql.clone() };
        if self.step(step) {
            self.life.totals.views += 1;
            for view in &mut self.views {
                view.read |= query.sql.contains(&format!("{} AS", view.relation.name));
            }
            let columns = query.tys.iter().enumerate().map(|(i, ty)| (format!("c{}", i + 1), *ty));
            let relation = Relation { name, columns: columns.collect(), rows: query.rows };
            self.views.push(View { relation, materialized, read: false });
        }
    }

    fn drop_view(&mut self, dice: &mut Dice) {
        let free: Vec<usize> = (0..self.views.len()).filter(|i| !self.views[*i].read).collect();
        if free.is_empty() {
            return;
        }
        let view = self.views.remove(*dice.pick(&free));
        self.step(Step::Drop { name: view.relation.name, materialized: view.materialized });
    }
}
