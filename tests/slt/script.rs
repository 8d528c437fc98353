//! Reads sqllogictest files of other systems: what is not known is counted, not fatal.
//!
//! Every record is rewritten as this suite's own dialect has it and parsed alone, so a record that nobody
//! understands costs itself and nothing else.

use std::path::Path;

use sqllogictest::{DefaultColumnType, Record};

/// A file's records, each with its place.
#[derive(Default)]
pub struct Script {
    /// `file:line` and the record.
    pub records: Vec<(String, Record<DefaultColumnType>)>,
    /// Directives that nobody understands, as written.
    pub unknown: Vec<String>,
    /// SQLite's own way of writing values: numbers by the declared type, one value per line.
    pub sqlite: bool,
}

/// Files may include each other this deep.
const INCLUDE_DEPTH: usize = 8;

impl Script {
    /// Reads a file and what it includes.
    ///
    /// # Errors
    /// The file that cannot be read, and why.
    pub fn read(path: &Path) -> Result<Script, String> {
        let mut script = Script::default();
        script.file(path, 0)?;
        Ok(script)
    }

    fn file(&mut self, path: &Path, depth: usize) -> Result<(), String> {
        if depth > INCLUDE_DEPTH {
            return Err(format!("{}: includes itself", path.display()));
        }
        let bytes = std::fs::read(path).map_err(|e| format!("{}: {e}", path.display()))?;
        let text = String::from_utf8_lossy(&bytes);
        let lines: Vec<&str> = text.lines().map(str::trim_end).collect();
        // Conditions and the connection belong to the record after them.
        let mut ahead = String::new();
        let mut i = 0;
        while i < lines.len() {
            let (line, words) = (lines[i], lines[i].split_whitespace().collect::<Vec<_>>());
            let place = format!("{}:{}", path.display(), i + 1);
            if words.is_empty() || line.starts_with('#') {
                i += 1;
                continue;
            }
            let end = (i..lines.len()).find(|n| lines[*n].is_empty()).unwrap_or(lines.len());
            match words[0] {
                "halt" => break,
                "skipif" | "onlyif" | "connection" => {
                    ahead.push_str(line.split('#').next().unwrap_or(line).trim_end());
                    ahead.push('\n');
                    i += 1;
                    continue;
                }
                "include" => {
                    let pattern = words.get(1).copied().unwrap_or_default();
                    for included in included(path, pattern) {
                        self.file(&included, depth + 1)?;
                    }
                    i += 1;
                    continue;
                }
                "subtest" => {
                    i += 1;
                    continue;
                }
                "statement" | "query" => {
                    let multiline = words.iter().skip(2).any(|w| *w == "multiline");
                    let end = if multiline {
                        (i..lines.len()).find(|n| lines[*n] == "EOF").unwrap_or(end)
                    } else {
                        end
                    };
                    let record =
                        std::mem::take(&mut ahead) + &rewritten(&words, &lines[i + 1..end], multiline);
                    self.add(&place, &record, line);
                    i = end + usize::from(multiline);
                    continue;
                }
                "hash-threshold" => {
                    self.sqlite = true;
                    self.add(&place, line, line);
                    i += 1;
                    continue;
                }
                "control" | "sleep" => {
                    self.add(&place, line, line);
                    i += 1;
                    continue;
                }
                "let" => self.add(&place, &lines[i..end].join("\n"), line),
                _ => self.unknown.push(line.to_string()),
            }
            ahead.clear();
            i = end;
        }
        Ok(())
    }

    fn add(&mut self, place: &str, record: &str, line: &str) {
        match sqllogictest::parse_with_name::<DefaultColumnType>(record, place) {
            Ok(records) => {
                let wanted =
                    records.into_iter().filter(|r| !matches!(r, Record::Newline | Record::Comment(_)));
                self.records.extend(wanted.map(|r| (place.to_string(), r)));
            }
            Err(_) => self.unknown.push(line.to_string()),
        }
    }
}

/// A statement or query as this suite's dialect has it: an expected error may be any, options that say how the other
/// system shows results are taken out.
fn rewritten(words: &[&str], body: &[&str], multiline: bool) -> String {
    let delimiter = body.iter().position(|l| *l == "----").unwrap_or(body.len());
    let sql = body[..delimiter].join("\n");
    let mut results = body.get(delimiter + 1..).unwrap_or_default();
    let fails = words.get(1).is_some_and(|w| *w == "error" || *w == "notice");
    match words[0] {
        "statement" if words.get(1) == Some(&"count") => {
            format!("{}\n{sql}\n", words[..words.len().min(3)].join(" "))
        }
        "statement" if words.get(1) == Some(&"error") => format!("statement error\n{sql}\n"),
        "statement" => format!("statement ok\n{sql}\n"),
        _ if fails => format!("query error\n{sql}\n"),
        _ => {
            let options: Vec<&str> = words.iter().skip(2).flat_map(|w| w.split(',')).collect();
            let sort = options.iter().find(|o| ["nosort", "rowsort", "valuesort"].contains(o));
            let sort = sort.or(options.iter().find(|o| o.starts_with("partialsort")).map(|_| &"rowsort"));
            if options.contains(&"colnames") {
                results = results.get(1..).unwrap_or_default();
            }
            let types = words.get(1).copied().unwrap_or("?");
            let mut record = format!("query {types} {}\n{sql}\n", sort.unwrap_or(&"nosort"));
            if delimiter < body.len() {
                // A value of several lines is compared word by word.
                let results = if multiline { results.join(" ") } else { results.join("\n") };
                record.push_str(&format!("----\n{results}\n"));
            } else {
                // Without results, only that it runs is asked for.
                record = format!("statement ok\n{sql}\n");
            }
            record
        }
    }
}

/// The files that `include pattern` in `path` means; `*` stands in the last part only.
fn included(path: &Path, pattern: &str) -> Vec<std::path::PathBuf> {
    let target = path.parent().unwrap_or(Path::new(".")).join(pattern);
    let Some((before, after)) = pattern.rsplit('/').next().unwrap_or(pattern).split_once('*') else {
        return vec![target];
    };
    let Some(entries) = target.parent().and_then(|dir| std::fs::read_dir(dir).ok()) else {
        return Vec::new();
    };
    let mut files: Vec<_> = entries
        .filter_map(|e| Some(e.ok()?.path()))
        .filter(|p| {
            let name = p.file_name().unwrap_or_default().to_string_lossy();
            name.starts_with(before) && name.ends_with(after)
        })
        .collect();
    files.sort();
    files
}
