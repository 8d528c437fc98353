//! From one page of an answer to the next.

use reqwest::Url;
use reqwest::header::{HeaderMap, LINK};

use super::settings::invalid;
use crate::connectors::Options;
use crate::connectors::format::pointer::Pointer;
use crate::error::Result;

/// A poll has no more pages than this unless the option `paging.limit` says otherwise.
const PAGES: usize = 1000;

/// How the next page is found.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Next {
    /// The header `Link: <…>; rel="next"` says where it is.
    Link,
    /// The answer says where it is.
    Url(Pointer),
    /// The answer says what to ask for.
    Cursor { pointer: Pointer, parameter: String },
    /// It has the next number; the last page is the one without records.
    Number { parameter: String, first: u64 },
}

/// How answers of several pages are read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Paging {
    next: Next,
    /// The most pages of one poll.
    pub limit: usize,
    /// A poll begins where the last one has ended.
    resume: bool,
}

/// Where a poll goes on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Page {
    /// There is no further page.
    Last,
    /// The next page is there.
    At(Url),
}

impl Paging {
    /// Takes `paging` and what belongs to it; `None`: answers have one page.
    pub(super) fn take(options: &mut Options, format: &str) -> Result<Option<Paging>> {
        let Some(kind) = options.take("paging") else { return Ok(None) };
        let limit = options.parse("paging.limit", "a number of pages")?.unwrap_or(PAGES).max(1);
        let resume = options.parse("paging.resume", "true or false")?.unwrap_or(false);
        let pointer = |options: &mut Options| {
            if format != "json" {
                return Err(invalid(format!("paging = '{kind}' of a HTTP source needs FORMAT JSON"))
                    .with_hint("Pages of other formats are found by paging = 'link' or 'page'."));
            }
            Pointer::new(&options.require("paging.pointer")?)
        };
        let next = match kind.as_str() {
            "link" => Next::Link,
            "next" => Next::Url(pointer(options)?),
            "cursor" => {
                Next::Cursor { pointer: pointer(options)?, parameter: options.require("paging.parameter")? }
            }
            "page" => Next::Number {
                parameter: options.require("paging.parameter")?,
                first: options.parse("paging.start", "a whole number")?.unwrap_or(1),
            },
            other => {
                return Err(invalid(format!(
                    "option \"paging\" of a HTTP source must be 'link', 'next', 'cursor' or 'page', not \"{other}\""
                )));
            }
        };
        if resume && !matches!(next, Next::Cursor { .. }) {
            return Err(invalid("option \"paging.resume\" of a HTTP source needs paging = 'cursor'"));
        }
        Ok(Some(Paging { next, limit, resume }))
    }

    /// Whether a poll begins where the last one has ended.
    pub(super) fn resumes(&self) -> bool {
        self.resume
    }

    /// The first page's url, after a cursor if there is one.
    pub(super) fn first(&self, url: &Url, cursor: Option<&str>) -> Url {
        match (&self.next, cursor) {
            (Next::Cursor { parameter, .. }, Some(cursor)) => with_parameter(url, parameter, cursor),
            (Next::Number { parameter, first }, _) => with_parameter(url, parameter, &first.to_string()),
            _ => url.clone(),
        }
    }

    /// The cursor that a page ends with.
    ///
    /// # Errors
    /// The page is no JSON.
    pub(super) fn cursor(&self, body: &[u8]) -> std::result::Result<Option<String>, String> {
        match &self.next {
            Next::Cursor { pointer, .. } => text_at(pointer, body),
            _ => Ok(None),
        }
    }

    /// What comes after the page at `url`, the `n`th of its poll (from 0), in which there were `records`.
    ///
    /// # Errors
    /// Why that cannot be said.
    pub(super) fn next(
        &self,
        url: &Url,
        n: usize,
        headers: &HeaderMap,
        body: &[u8],
        records: usize,
    ) -> std::result::Result<Page, String> {
        let next = match &self.next {
            Next::Link => next_link(headers).map(|link| join(url, &link)).transpose()?,
            Next::Url(pointer) => text_at(pointer, body)?.map(|link| join(url, &link)).transpose()?,
            Next::Cursor { pointer, parameter } => {
                text_at(pointer, body)?.map(|cursor| with_parameter(url, parameter, &cursor))
            }
            Next::Number { parameter, first } => (records > 0)
                .then(|| with_parameter(url, parameter, &first.saturating_add(n as u64 + 1).to_string())),
        };
        Ok(match next {
            // A cursor that stays is the end.
            Some(next) if next != *url => Page::At(next),
            _ => Page::Last,
        })
    }
}

fn text_at(pointer: &Pointer, body: &[u8]) -> std::result::Result<Option<String>, String> {
    let text = std::str::from_utf8(body).map_err(|e| format!("the answer is no text: {e}"))?;
    pointer.text(text).map_err(|m| format!("the answer is no JSON: {} (byte {})", m.what, m.at))
}

/// A link, which may be relative. It must not lead elsewhere: what it is asked with is meant for this server.
fn join(url: &Url, link: &str) -> std::result::Result<Url, String> {
    let next = url.join(link).map_err(|e| format!("the next page's address \"{link}\" is none: {e}"))?;
    if next.origin() != url.origin() {
        return Err(format!("the next page's address \"{link}\" is on another server"));
    }
    Ok(next)
}

fn with_parameter(url: &Url, parameter: &str, value: &str) -> Url {
    let mut next = url.clone();
    let others: Vec<(String, String)> =
        url.query_pairs().filter(|(name, _)| name != parameter).map(|(n, v)| (n.into(), v.into())).collect();
    next.query_pairs_mut().clear().extend_pairs(others).append_pair(parameter, value);
    next
}

/// What `Link` says is next.
fn next_link(headers: &HeaderMap) -> Option<String> {
    let values = headers.get_all(LINK).iter().filter_map(|value| value.to_str().ok());
    for value in values {
        let mut rest = value;
        while let Some((target, after)) = rest.split_once('<').and_then(|(_, r)| r.split_once('>')) {
            let parameters = after.split('<').next().unwrap_or_default();
            rest = after;
            let is_next = parameters.split(';').any(|parameter| {
                let Some((name, value)) = parameter.split_once('=') else { return false };
                let value = value.trim().trim_end_matches(',').trim_end().trim_matches('"');
                name.trim().eq_ignore_ascii_case("rel")
                    && value.split_ascii_whitespace().any(|rel| rel.eq_ignore_ascii_case("next"))
            });
            if is_next {
                return Some(target.trim().to_string());
            }
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn paging(options: &[(&str, &str)]) -> Result<Option<Paging>> {
        let options = options.iter().map(|(n, v)| ((*n).to_string(), (*v).to_string())).collect();
        let mut options = Options::new("a HTTP source", options);
        let paging = Paging::take(&mut options, "json")?;
        options.finish()?;
        Ok(paging)
    }

    fn next(options: &[(&str, &str)], link: Option<&str>, body: &str) -> std::result::Result<String, String> {
        let url = Url::parse("http://h:1/a/b?x=1&c=7").unwrap();
        let mut headers = HeaderMap::new();
        link.map(|l| headers.insert(LINK, l.parse().unwrap()));
        let page = paging(options).unwrap().unwrap().next(&url, 4, &headers, body.as_bytes(), body.len())?;
        Ok(match page {
            Page::Last => "last".to_string(),
            Page::At(url) => url.to_string(),
        })
    }

    #[test]
    fn pages_lead_to_the_next() {
        let link = &[("paging", "link")][..];
        let header = "<http://h:1/p?a=b,c>; rel=\"prev\", </n?z=2>; title=x; rel=\"last next\"";
        assert_eq!(next(link, Some(header), "").unwrap(), "http://h:1/n?z=2");
        assert_eq!(next(link, Some("<x>; rel=prev"), "").unwrap(), "last");
        assert_eq!(next(link, None, "").unwrap(), "last");
        assert!(next(link, Some("<http://other/x>; rel=next"), "").unwrap_err().contains("another server"));
        let url = &[("paging", "next"), ("paging.pointer", "/next")][..];
        assert_eq!(next(url, None, r#"{"next": "c?page=2"}"#).unwrap(), "http://h:1/a/c?page=2");
        assert_eq!(next(url, None, r#"{"next": null}"#).unwrap(), "last");
        assert!(next(url, None, "<html>").unwrap_err().contains("no JSON"));
        let cursor = &[("paging", "cursor"), ("paging.pointer", "/m/c"), ("paging.parameter", "c")][..];
        assert_eq!(next(cursor, None, r#"{"m": {"c": "a b"}}"#).unwrap(), "http://h:1/a/b?x=1&c=a+b");
        assert_eq!(next(cursor, None, r#"{"m": {"c": 7}}"#).unwrap(), "last");
        let page = &[("paging", "page"), ("paging.parameter", "p"), ("paging.start", "0")][..];
        assert_eq!(next(page, None, "x").unwrap(), "http://h:1/a/b?x=1&c=7&p=5");
        assert_eq!(next(page, None, "").unwrap(), "last");
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        for options in [
            &[("paging", "other")][..],
            &[("paging", "next")],
            &[("paging", "cursor"), ("paging.pointer", "/a")],
            &[("paging", "next"), ("paging.pointer", "a")],
            &[("paging", "link"), ("paging.resume", "true")],
            &[("paging", "link"), ("paging.pointer", "/a")],
        ] {
            assert_eq!(paging(options).unwrap_err().sqlstate.0, "22023", "{options:?}");
        }
    }
}
