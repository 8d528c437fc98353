//! Settings.
/// Settings.
#[derive(Clone, Debug, Default)] pub struct Config {}
