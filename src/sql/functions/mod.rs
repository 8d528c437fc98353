//! Functions that queries can call: DataFusion's, and those that PostgreSQL has besides or defines otherwise.

pub mod arithmetic;
pub mod arrays;
pub mod asof;
mod bytes;
mod calendar;
pub mod cast;
mod collected;
mod define;
mod degrees;
mod format;
pub mod json;
mod json_path;
mod jsonb;
pub mod length;
mod math;
mod numbers;
mod one_type;
pub mod operators;
pub mod patterns;
pub mod precision;
pub mod quantified;
mod ranks;
pub mod regexp;
mod rounding;
pub mod series;
pub mod session;
mod signatures;
mod strings;
pub mod temporal;
mod text;
mod to_char;
mod to_char_number;
mod to_number;
mod windows;

use std::collections::HashMap;
use std::sync::{Arc, LazyLock};

use datafusion::common::config::ConfigOptions;
use datafusion::execution::SessionStateDefaults;
use datafusion::logical_expr::planner::ExprPlanner;
use datafusion::logical_expr::{AggregateUDF, ScalarUDF, WindowUDF};

/// Every function by each of its names.
pub struct Functions {
    scalar: HashMap<String, Arc<ScalarUDF>>,
    aggregate: HashMap<String, Arc<AggregateUDF>>,
    window: HashMap<String, Arc<WindowUDF>>,
    expr_planners: Vec<Arc<dyn ExprPlanner>>,
    config: ConfigOptions,
}

static FUNCTIONS: LazyLock<Functions> = LazyLock::new(Functions::build);

/// PostgreSQL's names for aggregates that DataFusion calls otherwise.
const AGGREGATE_ALIASES: [(&str, &str); 4] = [
    ("every", "bool_and"),
    ("variance", "var_samp"),
    ("any_value", "first_value"),
    ("stddev_samp", "stddev"),
];

/// PostgreSQL's names for functions that DataFusion calls otherwise.
const SCALAR_ALIASES: [(&str, &str); 4] = [
    ("char_length", "character_length"),
    ("array_cat", "array_concat"),
    ("substring", "substr"),
    ("trim", "btrim"),
];

impl Functions {
    /// All functions; built once.
    pub fn get() -> &'static Functions {
        &FUNCTIONS
    }

    fn build() -> Functions {
        let mut scalar = HashMap::new();
        let ours = session::functions()
            .into_iter()
            .chain(json::functions())
            .chain(text::functions())
            .chain(strings::functions())
            .chain(to_char::functions())
            .chain(arrays::functions())
            .chain(calendar::functions())
            .chain(jsonb::functions())
            .chain(json_path::functions())
            .chain(collected::functions())
            .chain([format::function(), to_number::function()])
            .chain(patterns::functions())
            .chain(precision::functions())
            .chain(regexp::functions())
            .chain(rounding::functions())
            .chain(numbers::functions())
            .chain(degrees::functions())
            .chain(bytes::functions())
            .chain(signatures::functions())
            .chain([length::array_length()])
            .chain(quantified::functions())
            .chain(temporal::functions())
            .chain(windows::functions());
        let theirs = SessionStateDefaults::default_scalar_functions()
            .into_iter()
            .map(math::guarded)
            .map(one_type::patient);
        for function in theirs.chain(ours) {
            for name in std::iter::once(function.name()).chain(function.aliases().iter().map(String::as_str))
            {
                scalar.insert(name.to_string(), Arc::clone(&function));
            }
        }
        let mut aggregate = HashMap::new();
        for function in SessionStateDefaults::default_aggregate_functions() {
            for name in std::iter::once(function.name()).chain(function.aliases().iter().map(String::as_str))
            {
                aggregate.insert(name.to_string(), Arc::clone(&function));
            }
        }
        let mut window = HashMap::new();
        let theirs = SessionStateDefaults::default_window_functions().into_iter().map(ranks::signed);
        for function in theirs.chain(windows::window_functions()) {
            for name in std::iter::once(function.name()).chain(function.aliases().iter().map(String::as_str))
            {
                window.insert(name.to_string(), Arc::clone(&function));
            }
        }
        // What makes rows is `unnest` of this.
        if let Some(series) = scalar.get("generate_series").cloned() {
            scalar.insert("series_array".to_string(), series);
        }
        for (alias, name) in SCALAR_ALIASES {
            if let Some(function) = scalar.get(name).cloned() {
                scalar.insert(alias.to_string(), function);
            }
        }
        for (alias, name) in AGGREGATE_ALIASES {
            if let Some(function) = aggregate.get(name).cloned() {
                aggregate.entry(alias.to_string()).or_insert(function);
            }
        }
        // Ours first: DataFusion's own would refuse JSON operators.
        let mut expr_planners: Vec<Arc<dyn ExprPlanner>> =
            vec![Arc::new(json::Operators), Arc::new(operators::Arithmetic)];
        expr_planners.extend(SessionStateDefaults::default_expr_planners());
        Functions { scalar, aggregate, window, expr_planners, config: config() }
    }

    /// A scalar function by its name.
    pub fn scalar(&self, name: &str) -> Option<Arc<ScalarUDF>> {
        self.scalar.get(name).cloned()
    }

    /// An aggregate function by its name.
    pub fn aggregate(&self, name: &str) -> Option<Arc<AggregateUDF>> {
        self.aggregate.get(name).cloned()
    }

    /// A window function by its name.
    pub fn window(&self, name: &str) -> Option<Arc<WindowUDF>> {
        self.window.get(name).cloned()
    }

    /// Names of all scalar functions.
    pub fn scalar_names(&self) -> Vec<String> {
        self.scalar.keys().cloned().collect()
    }

    /// Names of all aggregate functions.
    pub fn aggregate_names(&self) -> Vec<String> {
        self.aggregate.keys().cloned().collect()
    }

    /// Names of all window functions.
    pub fn window_names(&self) -> Vec<String> {
        self.window.keys().cloned().collect()
    }

    /// How operators and special syntax become calls.
    pub fn expr_planners(&self) -> &[Arc<dyn ExprPlanner>] {
        &self.expr_planners
    }

    /// The settings of planning.
    pub fn config(&self) -> &ConfigOptions {
        &self.config
    }
}

fn config() -> ConfigOptions {
    let mut config = ConfigOptions::new();
    config.sql_parser.parse_float_as_decimal = true;
    config.sql_parser.enable_ident_normalization = true;
    config.sql_parser.map_string_types_to_utf8view = true;
    config.sql_parser.collect_spans = true;
    config
}
