//! The statistics of a layer in the text format that Prometheus reads.

use std::fmt::Write;

use crate::error::Error;
use crate::stats::{METRIC_PREFIX, Series, Stat, StatKind};

/// Labels that series of ours have.
const OUR_LABELS: [&str; 2] = ["outcome", "reason"];

/// The labels that a user gives to every series, checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Labels(String);

impl Labels {
    /// Reads labels as they stand between the braces of a series, `site="a",zone="b"`. Empty or
    /// blank text is none.
    pub(crate) fn parse(text: &str) -> Result<Self, Error> {
        let mut names: Vec<&str> = Vec::new();
        let mut labels = String::new();
        let mut rest = text.trim_matches(BLANK);
        while !rest.is_empty() {
            let (name, after) = label_name(text, rest)?;
            if names.contains(&name) {
                return Err(wrong(text, &format!("label '{name}' stands there twice")));
            }
            let (value, after) = label_value(text, name, after)?;
            if !labels.is_empty() {
                labels.push(',');
            }
            labels.push_str(name);
            labels.push('=');
            labels.push_str(value);
            names.push(name);
            rest = match after.trim_start_matches(BLANK) {
                "" => "",
                after => match after.strip_prefix(',').map(|r| r.trim_start_matches(BLANK)) {
                    Some("") => {
                        return Err(wrong(text, "a ',' at the end has no label behind it"));
                    }
                    Some(next) => next,
                    None => {
                        return Err(wrong(
                            text,
                            &format!("after label '{name}' comes {after:?} where a ',' is to be"),
                        ));
                    }
                },
            };
        }
        Ok(Self(labels))
    }
}

const BLANK: [char; 2] = [' ', '\t'];

fn wrong(text: &str, why: &str) -> Error {
    Error::invalid(format!(
        "these are no labels for Prometheus: {text:?}: {why}; write them as \
         site=\"a\",zone=\"b\", or none"
    ))
}

/// The name that `rest` begins with, and what follows its `=`.
fn label_name<'a>(text: &str, rest: &'a str) -> Result<(&'a str, &'a str), Error> {
    let Some((name, after)) = rest.split_once('=') else {
        return Err(wrong(text, &format!("{rest:?} has no '='")));
    };
    let name = name.trim_end_matches(BLANK);
    let good = !name.is_empty()
        && !name.starts_with(|first: char| first.is_ascii_digit())
        && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
    if !good {
        return Err(wrong(
            text,
            &format!(
                "{name:?} is no name of a label, which has ASCII letters, digits and '_' and does \
                 not begin with a digit"
            ),
        ));
    }
    if name.starts_with("__") {
        let why = format!("label '{name}' begins with '__', which Prometheus keeps for itself");
        return Err(wrong(text, &why));
    }
    if OUR_LABELS.contains(&name) {
        let why = format!("label '{name}' is one of the library's own: take another name");
        return Err(wrong(text, &why));
    }
    Ok((name, after.trim_start_matches(BLANK)))
}

/// The value that `rest` begins with, its quotes included, and what follows.
fn label_value<'a>(text: &str, name: &str, rest: &'a str) -> Result<(&'a str, &'a str), Error> {
    let wrong = |why: &str| wrong(text, &format!("the value of label '{name}' {why}"));
    let mut characters = rest.char_indices();
    if !matches!(characters.next(), Some((_, '"'))) {
        return Err(wrong("does not begin with '\"'"));
    }
    while let Some((at, character)) = characters.next() {
        match character {
            '"' => return Ok(rest.split_at(at + 1)),
            '\\' => match characters.next() {
                Some((_, '\\' | '"' | 'n')) => {}
                _ => {
                    return Err(wrong(
                        "has a '\\' that is not one of \\\\, \\\" and \\n, which stand for a \
                         backslash, a quote and a line's end",
                    ));
                }
            },
            control if control.is_control() => {
                return Err(wrong(&format!("holds the control character {control:?}")));
            }
            _ => {}
        }
    }
    Err(wrong("has no closing '\"'"))
}

/// All statistics as text, each by what `value` says of it.
pub(crate) fn text(labels: &Labels, value: impl Fn(Stat) -> u64) -> String {
    let mut text = String::with_capacity(8192);
    for (index, first) in Stat::ALL.iter().enumerate() {
        let metric = first.series().metric;
        let is_of_metric = |stat: &&Stat| stat.series().metric == metric;
        // All series of a metric stand together, where its first one is.
        if Stat::ALL.iter().take(index).any(|stat| is_of_metric(&stat)) {
            continue;
        }
        let help = first.series().help.unwrap_or_else(|| first.meaning());
        let kind = match first.kind() {
            StatKind::Counter => "counter",
            StatKind::Gauge => "gauge",
        };
        // Writing to a string cannot fail.
        let _ = writeln!(text, "# HELP {METRIC_PREFIX}{metric} {help}");
        let _ = writeln!(text, "# TYPE {METRIC_PREFIX}{metric} {kind}");
        for stat in Stat::ALL.iter().filter(is_of_metric) {
            sample(&mut text, labels, stat.series(), value(*stat));
        }
    }
    text
}

/// No text with these labels is longer.
pub(crate) fn most(labels: &Labels) -> usize {
    text(labels, |_| u64::MAX).len()
}

fn sample(text: &mut String, labels: &Labels, series: Series, value: u64) {
    let _ = write!(text, "{METRIC_PREFIX}{}", series.metric);
    let own = series
        .label
        .map(|(name, value)| format!("{name}=\"{value}\""));
    let all: Vec<&str> = [
        Some(labels.0.as_str()).filter(|l| !l.is_empty()),
        own.as_deref(),
    ]
    .into_iter()
    .flatten()
    .collect();
    if !all.is_empty() {
        let _ = write!(text, "{{{}}}", all.join(","));
    }
    let _ = if series.in_seconds {
        writeln!(
            text,
            " {}.{:09}",
            value / 1_000_000_000,
            value % 1_000_000_000
        )
    } else {
        writeln!(text, " {value}")
    };
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(text: &str) -> Labels {
        Labels::parse(text).unwrap()
    }

    #[test]
    fn labels_are_read_and_written_without_blanks() {
        assert_eq!(labels(""), labels("  \t"));
        assert_eq!(labels("site=\"a\"").0, "site=\"a\"");
        assert_eq!(
            labels(" site = \"a, b\" ,\tzone_2=\"\u{e9}\\n\\\"\\\\\" ").0,
            "site=\"a, b\",zone_2=\"\u{e9}\\n\\\"\\\\\""
        );
    }

    #[test]
    fn wrong_labels_are_refused_with_what_is_wrong() {
        for (text, why) in [
            ("site", "has no '='"),
            ("site=a", "does not begin with '\"'"),
            ("site=\"a", "no closing"),
            ("site=\"a\\t\"", "backslash"),
            ("site=\"a\\", "backslash"),
            ("site=\"a\nb\"", "control character '\\n'"),
            ("site=\"a\" zone=\"b\"", "where a ',' is to be"),
            ("site=\"a\"}", "where a ',' is to be"),
            ("site=\"a\",", "at the end"),
            (",site=\"a\"", "is no name"),
            ("=\"a\"", "is no name"),
            ("1site=\"a\"", "is no name"),
            ("s\u{ef}te=\"a\"", "is no name"),
            ("__name__=\"a\"", "keeps for itself"),
            ("reason=\"a\"", "the library's own"),
            ("a=\"1\",outcome=\"a\"", "the library's own"),
            ("a=\"1\",a=\"2\"", "twice"),
        ] {
            let error = Labels::parse(text).unwrap_err().to_string();
            assert!(error.contains(why), "{text}: {error}");
            assert!(error.contains("site=\"a\",zone=\"b\""), "{error}");
        }
    }

    #[test]
    fn each_statistic_is_one_series_and_each_metric_has_its_series_together() {
        let text = text(&labels("site=\"a\""), |stat| stat as u64);
        let mut seen: Vec<&str> = Vec::new();
        for line in text.lines() {
            let mut words = line.trim_start_matches("# HELP ").split([' ', '{']);
            let metric = words.next().unwrap();
            if line.starts_with("# HELP") {
                assert!(!seen.contains(&metric), "{metric} stands in two places");
                assert!(words.next().is_some_and(|word| !word.is_empty()));
                seen.push(metric);
            } else if !line.starts_with('#') {
                assert_eq!(seen.last(), Some(&metric));
                assert!(line.contains("site=\"a\""), "{line}");
            }
        }
        let samples: Vec<&str> = text.lines().filter(|line| !line.starts_with('#')).collect();
        assert_eq!(samples.len(), Stat::ALL.len());
        for stat in Stat::ALL {
            let value = match stat {
                Stat::CallbackNanoseconds => format!(" 0.{:09}", *stat as u32),
                _ => format!(" {}", *stat as u32),
            };
            assert_eq!(
                samples.iter().filter(|line| line.ends_with(&value)).count(),
                1
            );
        }
        assert!(text.ends_with('\n'));
    }

    #[test]
    fn names_and_kinds_are_as_the_format_wants_them() {
        for stat in Stat::ALL {
            let metric = stat.series().metric;
            let good = |c: char| c.is_ascii_lowercase() || c == '_';
            assert!(metric.chars().all(good), "{metric}");
            assert_eq!(
                metric.ends_with("_total"),
                stat.kind() == StatKind::Counter,
                "{metric}"
            );
            assert_eq!(metric.contains("_seconds"), stat.series().in_seconds);
            // What these hold would have to be escaped.
            assert!(!stat.meaning().contains(['\\', '\n']), "{metric}");
            for other in Stat::ALL.iter().filter(|s| s.series().metric == metric) {
                assert_eq!(other.kind(), stat.kind());
                assert_eq!(other.series().help, stat.series().help);
                assert_eq!(other == stat, other.series().label == stat.series().label);
            }
            assert!(
                stat.series()
                    .label
                    .is_none_or(|(name, _)| OUR_LABELS.contains(&name)),
                "{metric}"
            );
        }
    }

    #[test]
    fn no_text_is_longer_than_the_longest() {
        for given in ["", "site=\"a\",zone=\"b\""] {
            let labels = labels(given);
            let most = most(&labels);
            assert!(text(&labels, |_| 0).len() < most);
            assert_eq!(text(&labels, |_| u64::MAX).len(), most);
            assert!(text(&labels, |stat| u64::MAX / (stat as u64 + 1)).len() <= most);
        }
    }

    #[test]
    fn the_text_is_as_it_always_was() {
        let text = text(&labels("site=\"a\""), |stat| match stat {
            Stat::DroppedExpired => 7,
            Stat::CallbackNanoseconds => 1_500_000_042,
            _ => 0,
        });
        for lines in [
            "# HELP channel_layer_dropped_total Counts messages that were dropped, by the reason.\n\
             # TYPE channel_layer_dropped_total counter\n\
             channel_layer_dropped_total{site=\"a\",reason=\"expired\"} 7\n\
             channel_layer_dropped_total{site=\"a\",reason=\"channel_full\"} 0\n",
            "# TYPE channel_layer_callback_seconds_total counter\n\
             channel_layer_callback_seconds_total{site=\"a\"} 1.500000042\n",
            "# TYPE channel_layer_backlog gauge\n\
             channel_layer_backlog{site=\"a\"} 0\n",
        ] {
            assert!(text.contains(lines), "{text}");
        }
    }
}
