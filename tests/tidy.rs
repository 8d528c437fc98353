//! The rules of the house that a compiler does not know.

use std::path::{Path, PathBuf};

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn files(dir: &str, extension: &str) -> Vec<(PathBuf, String)> {
    let mut found = Vec::new();
    let mut dirs = vec![root().join(dir)];
    while let Some(dir) = dirs.pop() {
        let Ok(entries) = std::fs::read_dir(&dir) else { continue };
        for entry in entries {
            let path = entry.expect("a directory entry").path();
            if path.is_dir() {
                dirs.push(path);
            } else if path.extension().is_some_and(|e| e == extension) {
                let text = std::fs::read_to_string(&path).expect("a text file");
                found.push((path.strip_prefix(root()).expect("under the root").to_path_buf(), text));
            }
        }
    }
    found.sort();
    found
}

/// Source files without those that hold nothing but unit tests.
fn product_files(dir: &str) -> Vec<(PathBuf, String)> {
    let is_test = |p: &Path| {
        p.iter().any(|part| part == "tests")
            || p.file_name().is_some_and(|n| n == "tests.rs" || n == "testing.rs")
    };
    files(dir, "rs").into_iter().filter(|(path, _)| !is_test(path)).collect()
}

/// The code of a file without its unit tests, which stand last.
fn product_code(text: &str) -> &str {
    text.split("#[cfg(test)]\nmod ").next().unwrap_or(text)
}

fn complain(broken: Vec<String>) {
    assert!(broken.is_empty(), "\n{}", broken.join("\n"));
}

/// What each layer may use, itself aside; see ARCHITECTURE.md.
const LAYERS: &[(&str, &[&str])] = &[
    ("types", &["error"]),
    ("engine", &["types", "error", "world"]),
    ("sql", &["engine", "types", "error", "world"]),
    ("connectors", &["engine", "types", "error", "world"]),
    ("database", &["sql", "connectors", "engine", "types", "error", "world", "config"]),
    ("pgwire", &["database", "types", "error", "world", "config"]),
    ("http", &["database", "types", "error", "world", "config"]),
];

#[test]
fn layers_import_downward_only() {
    let mut broken = Vec::new();
    for (layer, allowed) in LAYERS {
        for (path, text) in product_files(&format!("src/{layer}")) {
            for (n, line) in product_code(&text).lines().enumerate() {
                let code = line.split("//").next().unwrap_or_default();
                for (at, _) in code.match_indices("crate::") {
                    let module: String = code[at + "crate::".len()..]
                        .chars()
                        .take_while(|c| c.is_alphanumeric() || *c == '_')
                        .collect();
                    let is_module = LAYERS.iter().any(|(l, _)| *l == module);
                    if is_module && module != *layer && !allowed.contains(&module.as_str()) {
                        broken.push(format!("{}:{}: {layer} uses {module}", path.display(), n + 1));
                    }
                }
            }
        }
    }
    complain(broken);
}

#[test]
fn every_file_says_its_purpose_first() {
    let sources = ["src", "tests", "benches"].iter().flat_map(|d| files(d, "rs"));
    let silent = sources.filter(|(_, text)| !text.starts_with("//!"));
    complain(silent.map(|(path, _)| format!("{} does not open with //!", path.display())).collect());
}

#[test]
fn clock_and_chance_come_from_world() {
    const BANNED: &[&str] = &[
        "SystemTime::now",
        "Instant::now",
        "rand::random",
        "rand::rng()",
        "thread_rng",
        "Uuid::new_v4",
        "Utc::now",
        "Local::now",
        "thread::sleep",
    ];
    let mut broken = Vec::new();
    for (path, text) in product_files("src") {
        if path.ends_with("world.rs") {
            continue;
        }
        for (n, line) in product_code(&text).lines().enumerate() {
            let code = line.split("//").next().unwrap_or_default();
            for word in BANNED.iter().filter(|w| code.contains(**w)) {
                broken.push(format!("{}:{}: {word} outside of world.rs", path.display(), n + 1));
            }
        }
    }
    complain(broken);
}

#[test]
fn nothing_is_left_undone() {
    // Spelled apart so that this file does not find itself.
    let banned = [
        "todo".to_string() + "!(",
        "unimplemented".to_string() + "!(",
        "dbg".to_string() + "!(",
        "TO".to_string() + "DO",
        "FIX".to_string() + "ME",
        "#[ig".to_string() + "nore",
    ];
    let mut broken = Vec::new();
    for (path, text) in ["src", "tests", "benches"].iter().flat_map(|d| files(d, "rs")) {
        for (n, line) in text.lines().enumerate() {
            for word in banned.iter().filter(|w| line.contains(w.as_str())) {
                broken.push(format!("{}:{}: {word}", path.display(), n + 1));
            }
        }
    }
    complain(broken);
}

#[test]
fn links_in_the_documents_lead_somewhere() {
    let mut documents = files("docs", "md");
    for name in ["README.md", "ARCHITECTURE.md"] {
        let text = std::fs::read_to_string(root().join(name)).unwrap_or_else(|e| panic!("{name}: {e}"));
        documents.push((PathBuf::from(name), text));
    }
    let mut broken = Vec::new();
    for (path, text) in documents {
        for (at, _) in text.match_indices("](") {
            let target: String = text[at + 2..].chars().take_while(|c| *c != ')').collect();
            let file = target.split('#').next().unwrap_or_default();
            if file.is_empty() || file.contains("://") {
                continue;
            }
            let base = root().join(&path);
            let linked = base.parent().expect("a directory").join(file);
            if !linked.exists() {
                broken.push(format!("{}: {target} does not exist", path.display()));
            }
        }
    }
    complain(broken);
}
