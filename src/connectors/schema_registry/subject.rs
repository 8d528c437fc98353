//! The subjects that schemas are registered under, by Confluent's strategies.

use crate::connectors::Options;
use crate::error::{Error, Result, SqlState};

/// How a subject is named after what its records are and where they are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Strategy {
    /// `topic-value`, `topic-key`.
    #[default]
    Topic,
    /// The record's full name.
    Record,
    /// `topic-` and the record's full name.
    TopicRecord,
}

/// Which part of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// The key.
    Key,
    /// The value.
    Value,
}

impl Strategy {
    /// By the name that an option gives.
    ///
    /// # Errors
    /// 22023 for an unknown one.
    pub fn parse(name: &str) -> Result<Strategy> {
        match name.to_ascii_lowercase().replace('_', "").trim_end_matches("namestrategy") {
            "topic" => Ok(Strategy::Topic),
            "record" => Ok(Strategy::Record),
            "topicrecord" => Ok(Strategy::TopicRecord),
            _ => Err(Error::new(
                SqlState::INVALID_PARAMETER_VALUE,
                format!(
                    "option \"subject.name.strategy\" must be 'topic', 'record' or 'topic_record', not \"{name}\""
                ),
            )),
        }
    }

    /// The subject; `None` when it would need a record's name and there is none.
    pub fn subject(self, topic: &str, part: Part, record: Option<&str>) -> Option<String> {
        match self {
            Strategy::Topic => Some(format!("{topic}-{}", if part == Part::Key { "key" } else { "value" })),
            Strategy::Record => record.map(str::to_string),
            Strategy::TopicRecord => record.map(|r| format!("{topic}-{r}")),
        }
    }
}

/// Which subjects' schemas a source's or a sink's records have.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Subjects {
    strategy: Strategy,
    value: Option<String>,
    key: Option<String>,
    /// The full name of the value's record or message.
    pub message: Option<String>,
    /// The full name of the key's.
    pub key_message: Option<String>,
    /// The version that columns are inferred from; `None`: the latest.
    pub version: Option<i32>,
    topic: Option<String>,
}

impl Subjects {
    /// From the options of a FORMAT.
    ///
    /// # Errors
    /// 22023 for an option that is wrong.
    pub fn take(options: &mut Options) -> Result<Self> {
        let strategy = options.take("subject.name.strategy");
        Ok(Subjects {
            strategy: strategy.map_or(Ok(Strategy::default()), |s| Strategy::parse(&s))?,
            value: options.take("subject"),
            key: options.take("key.subject"),
            message: options.take("message"),
            key_message: options.take("key.message"),
            version: options.parse("schema.version", "a whole number")?,
            topic: None,
        })
    }

    /// Says which topic the records are in.
    pub fn set_topic(&mut self, topic: &str) {
        self.topic = Some(topic.to_string());
    }

    /// The subject of a part; `None` when it would need what nothing tells. `record` is the name of what is written.
    pub fn subject(&self, part: Part, record: Option<&str>) -> Option<String> {
        let (named, message) = match part {
            Part::Key => (&self.key, &self.key_message),
            Part::Value => (&self.value, &self.message),
        };
        if named.is_some() {
            return named.clone();
        }
        let topic = self.topic.as_deref().or((self.strategy == Strategy::Record).then_some(""))?;
        self.strategy.subject(topic, part, message.as_deref().or(record))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn subjects_are_named_as_confluents_clients_do() {
        for (strategy, value) in [
            ("TopicNameStrategy", Some("orders-value")),
            ("record", Some("a.Order")),
            ("topic_record_name_strategy", Some("orders-a.Order")),
        ] {
            let strategy = Strategy::parse(strategy).unwrap();
            assert_eq!(strategy.subject("orders", Part::Value, Some("a.Order")).as_deref(), value);
        }
        assert_eq!(Strategy::Topic.subject("t", Part::Key, None).as_deref(), Some("t-key"));
        assert_eq!(Strategy::Record.subject("t", Part::Key, None), None);
        assert!(Strategy::parse("x").is_err());
    }
}
