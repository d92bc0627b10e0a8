//! Tests of the option table.

#![allow(clippy::unwrap_used, clippy::panic)]

use std::path::PathBuf;
use std::time::Duration;

use proptest::prelude::*;
use serde_json::json;

use super::table::parse_seconds;
use super::*;
use crate::endpoint::{Hosts, Scheme};
use crate::error::ErrorKind;
use crate::name::Quoted;

fn with(options: &[(&str, &str)]) -> Settings {
    let mut config = Config::new();
    for (name, value) in options {
        config.set(name, value).unwrap();
    }
    config.settings().unwrap()
}

/// That an error holds each of these facts, whatever the words around them are.
fn holds(error: &Error, facts: &[&str]) {
    assert_eq!(error.kind(), ErrorKind::Invalid);
    let message = error.to_string();
    for fact in facts {
        assert!(message.contains(fact), "{message:?} lacks {fact:?}");
    }
}

/// Refused, with the option, the value and, where the table has it, what is allowed; and nothing was
/// changed.
fn refused(name: &str, value: &str) {
    let mut config = Config::new();
    let error = config.set(name, value).unwrap_err();
    holds(&error, &[name]);
    if name != HOST {
        holds(&error, &[&Quoted(value).to_string()]);
    }
    // What is allowed as a host or a queue is said by who reads it.
    if ![HOST, "queue_name"].contains(&name) {
        let spec = options().iter().find(|spec| spec.name == name).unwrap();
        holds(&error, &[&spec.allowed()]);
    }
    assert_eq!(
        config.settings().unwrap(),
        Config::new().settings().unwrap()
    );
}

#[test]
fn the_defaults_are_those_of_the_design() {
    let settings = Config::default().settings().unwrap();
    let Hosts::Amqp(hosts) = &settings.hosts else {
        panic!("{settings:?}");
    };
    assert_eq!(hosts.len(), 1);
    assert_eq!(hosts[0].scheme, Scheme::Amqp);
    assert_eq!(hosts[0].to_string(), "amqp://guest:***@127.0.0.1:5672/asgi");
    assert_eq!(hosts[0].password, "guest");
    assert_eq!(settings.expiry, Duration::from_secs(60));
    assert_eq!(settings.group_expiry, Some(Duration::from_secs(86_400)));
    assert_eq!(settings.local_capacity, 100);
    assert_eq!(settings.remote_capacity, 100);
    assert_eq!(settings.prefetch_count, 10);
    assert_eq!(settings.local_expiry, Duration::from_secs(60));
    assert_eq!(settings.groups_exchange, "groups");
    assert_eq!(settings.stall_after, Some(Duration::from_secs(1)));
    assert_eq!(settings.channel_capacity, 100);
    assert_eq!(settings.total_capacity, 100_000);
    assert_eq!(settings.timeout, Duration::from_secs(10));
    assert_eq!(settings.settle, Some(Duration::from_millis(500)));
    assert_eq!(settings.unbind_after, Duration::from_secs(2));
    assert_eq!(settings.connect_timeout, Duration::from_secs(5));
    assert_eq!(settings.reconnect_max, Duration::from_secs(30));
    assert_eq!(settings.heartbeat, 10);
    assert_eq!(settings.max_in_flight, 10_000);
    assert_eq!(settings.max_message_size, 16 << 20);
    assert_eq!(settings.dispatch, Dispatch::Thread);
    assert_eq!(settings.dispatch_threads, 1);
    assert_eq!(settings.queue_name, None);
    assert_eq!(settings.tls, Tls::default());
}

#[test]
fn every_option_can_be_set() {
    let settings = with(&[
        ("host", "amqps://a,amqp://b"),
        ("expiry", "0.25"),
        ("group_expiry", "1.5"),
        ("local_capacity", "0"),
        ("remote_capacity", "1"),
        ("prefetch_count", "7"),
        ("local_expiry", "1500"),
        ("groups_exchange", "my groups"),
        ("stall_after", "0.5"),
        ("channel_capacity", "5"),
        ("total_capacity", "50"),
        ("timeout", "0.001"),
        ("settle", "2.5"),
        ("unbind_after", "0.5"),
        ("connect_timeout", "3600"),
        ("reconnect_max", "0.5"),
        ("heartbeat", "0"),
        ("max_in_flight", "1"),
        ("max_message_size", "1048576"),
        ("dispatch", "poll"),
        ("dispatch_threads", "4"),
        ("queue_name", "test.queue"),
        ("tls_ca_file", "/ca.pem"),
        ("tls_ca_pem", "some PEM"),
        ("tls_cert_file", "cert.pem"),
        ("tls_key_file", "key.pem"),
    ]);
    assert!(matches!(&settings.hosts, Hosts::Amqp(list) if list.len() == 2));
    assert_eq!(settings.expiry, Duration::from_millis(250));
    assert_eq!(settings.group_expiry, Some(Duration::from_millis(1500)));
    assert_eq!(settings.local_capacity, 0);
    assert_eq!(settings.remote_capacity, 1);
    assert_eq!(settings.prefetch_count, 7);
    assert_eq!(settings.local_expiry, MAX_LOCAL_EXPIRY);
    assert_eq!(settings.groups_exchange, "my groups");
    assert_eq!(settings.stall_after, Some(Duration::from_millis(500)));
    assert_eq!(settings.channel_capacity, 5);
    assert_eq!(settings.total_capacity, 50);
    assert_eq!(settings.timeout, Duration::from_millis(1));
    assert_eq!(settings.settle, Some(Duration::from_millis(2500)));
    assert_eq!(settings.unbind_after, Duration::from_millis(500));
    assert_eq!(settings.connect_timeout, Duration::from_secs(3600));
    assert_eq!(settings.reconnect_max, Duration::from_millis(500));
    assert_eq!(settings.heartbeat, 0);
    assert_eq!(settings.max_in_flight, 1);
    assert_eq!(settings.max_message_size, 1 << 20);
    assert_eq!(settings.dispatch, Dispatch::Poll);
    assert_eq!(settings.dispatch_threads, 4);
    assert_eq!(settings.queue_name.as_deref(), Some("test.queue"));
    assert_eq!(settings.tls.ca_file, Some(PathBuf::from("/ca.pem")));
    assert_eq!(settings.tls.ca_pem, Some(Pem("some PEM".to_owned())));
    assert_eq!(settings.tls.cert_file, Some(PathBuf::from("cert.pem")));
    assert_eq!(settings.tls.key_file, Some(PathBuf::from("key.pem")));
}

#[test]
fn every_default_and_both_ends_of_every_range_are_allowed_and_nothing_beyond() {
    for spec in options() {
        let mut config = Config::new();
        config.set(spec.name, spec.default).unwrap();
        let mut allowed = |value: String| config.set(spec.name, &value).unwrap();
        match spec.kind {
            OptionKind::Text(_) | OptionKind::Path => {}
            OptionKind::Seconds(max) => {
                allowed("0.001".to_owned());
                allowed(max.to_string());
                refused(spec.name, "0.000999");
                refused(spec.name, &format!("{max}.000000001"));
            }
            OptionKind::SecondsOr(max, word) => {
                allowed("0.001".to_owned());
                allowed(max.to_string());
                allowed(word.to_owned());
                refused(spec.name, "0.000999");
                refused(spec.name, &format!("{max}.000000001"));
                refused(spec.name, &format!("{word}s"));
            }
            OptionKind::WholeSeconds(max) => {
                allowed("0".to_owned());
                allowed(max.to_string());
                refused(spec.name, "0.5");
                refused(spec.name, &(max + 1).to_string());
            }
            OptionKind::Count(min, max) | OptionKind::Bytes(min, max) => {
                allowed(min.to_string());
                allowed(max.to_string());
                refused(spec.name, &(max + 1).to_string());
                if min > 0 {
                    refused(spec.name, &(min - 1).to_string());
                }
            }
            OptionKind::Choice(words) => {
                words.iter().for_each(|word| allowed((*word).to_owned()));
                refused(spec.name, "neither");
            }
        }
    }
}

#[test]
fn a_word_in_place_of_seconds_is_no_duration() {
    assert_eq!(with(&[("group_expiry", "never")]).group_expiry, None);
    for zero in ["0", "0.0", "00"] {
        assert_eq!(with(&[("stall_after", zero)]).stall_after, None);
        assert_eq!(with(&[("settle", zero)]).settle, None);
        assert_eq!(with(&[("unbind_after", zero)]).unbind_after, Duration::ZERO);
        refused("group_expiry", zero);
    }
    refused("stall_after", "never");
}

#[test]
fn the_capacities_of_isolation_are_no_smaller_than_local_capacity() {
    let settings = with(&[("local_capacity", "200000")]);
    assert_eq!(
        (settings.channel_capacity, settings.total_capacity),
        (200_000, 200_000)
    );
    assert_eq!(with(&[("prefetch_count", "1000")]).channel_capacity, 1000);
    let small = [
        ("channel_capacity", "1"),
        ("total_capacity", "2"),
        ("local_capacity", "50"),
    ];
    let settings = with(&small);
    assert_eq!((settings.channel_capacity, settings.total_capacity), (1, 2));
}

#[test]
fn seconds_are_decimal() {
    assert_eq!(parse_seconds("10"), Some(Duration::from_secs(10)));
    assert_eq!(parse_seconds("10.0"), Some(Duration::from_secs(10)));
    assert_eq!(parse_seconds("0.25"), Some(Duration::from_millis(250)));
    assert_eq!(parse_seconds("007.5"), Some(Duration::from_millis(7500)));
    assert_eq!(parse_seconds("0.0000000019"), Some(Duration::from_nanos(1)));
    for value in [
        "",
        " ",
        ".",
        "1.",
        ".5",
        "-1",
        "+1",
        "1e3",
        "nan",
        "NaN",
        "inf",
        "-inf",
        "infinity",
        "1,5",
        "1.2.3",
        " 1",
        "1s",
        "0x10",
        "1_000",
        "\u{661}",
        "0",
        "0.0",
        "0.0001",
        "99999999999999999999999",
    ] {
        refused("expiry", value);
    }
    assert_eq!(with(&[("heartbeat", "5.0")]).heartbeat, 5);
}

#[test]
fn numbers_are_whole() {
    for value in [
        "",
        "-1",
        "+1",
        "1.0",
        "1e3",
        "ten",
        "1 000",
        "99999999999999999999999",
    ] {
        refused("local_capacity", value);
        refused("max_message_size", value);
    }
    refused("remote_capacity", "0");
    refused("prefetch_count", "0");
    refused("prefetch_count", "65536");
}

#[test]
fn prefetch_follows_a_small_local_capacity_unless_it_was_set() {
    let prefetch = |options: &[(&str, &str)]| with(options).prefetch_count;
    assert_eq!(prefetch(&[("local_capacity", "1")]), 1);
    assert_eq!(prefetch(&[("local_capacity", "9")]), 9);
    assert_eq!(prefetch(&[("local_capacity", "10")]), 10);
    assert_eq!(prefetch(&[("local_capacity", "0")]), 10);
    assert_eq!(prefetch(&[("local_capacity", "100000")]), 10);
    assert_eq!(
        prefetch(&[("prefetch_count", "10"), ("local_capacity", "1")]),
        10
    );
    let unset = [
        ("prefetch_count", "50"),
        ("prefetch_count", ""),
        ("local_capacity", "3"),
    ];
    assert_eq!(prefetch(&unset), 3);
}

#[test]
fn local_expiry_follows_expiry_up_to_25_minutes() {
    let local = |options: &[(&str, &str)]| with(options).local_expiry;
    assert_eq!(local(&[("expiry", "0.5")]), Duration::from_millis(500));
    assert_eq!(local(&[("expiry", "1500")]), MAX_LOCAL_EXPIRY);
    assert_eq!(local(&[("expiry", "7200")]), MAX_LOCAL_EXPIRY);
    assert_eq!(
        local(&[("local_expiry", "2"), ("expiry", "1")]),
        Duration::from_secs(2)
    );
    refused("local_expiry", "1500.001");
    refused("local_expiry", "7200");
}

#[test]
fn a_certificate_needs_its_key() {
    for name in ["tls_cert_file", "tls_key_file"] {
        let mut config = Config::new();
        config.set("host", "amqps://h").unwrap();
        config.set(name, "/x.pem").unwrap();
        let error = config.settings().unwrap_err();
        holds(&error, &["tls_cert_file", "tls_key_file"]);
        config.set(name, "").unwrap();
        config.settings().unwrap();
    }
    with(&[("host", "amqps://h"), ("tls_ca_file", "/ca.pem")]);
}

#[test]
fn no_text_of_a_certificate_or_key_is_in_a_debug_print() {
    let mut config = Config::new();
    config.set("host", "amqps://h").unwrap();
    config.set("tls_ca_pem", "s3cr3t").unwrap();
    let settings = config.settings().unwrap();
    for text in [format!("{config:?}"), format!("{settings:?}")] {
        assert!(text.contains("ca_pem"), "{text}");
        assert!(!text.contains("s3cr3t"), "{text}");
    }
}

#[test]
fn certificates_to_trust_are_named_by_a_file_or_as_text() {
    assert!(!with(&[("host", "amqps://h")]).tls.names_certificates());
    for name in ["tls_ca_file", "tls_ca_pem"] {
        let settings = with(&[("host", "amqps://h"), (name, "x")]);
        assert!(settings.tls.names_certificates(), "{name}");
    }
}

#[test]
fn tls_options_need_a_host_that_they_are_for() {
    let files = [
        ("tls_ca_file", "/ca.pem"),
        ("tls_ca_pem", "PEM"),
        ("tls_cert_file", "/cert.pem"),
        ("tls_key_file", "/key.pem"),
    ];
    let set = |host| {
        let mut config = Config::new();
        config.set("host", host).unwrap();
        for (name, value) in files {
            config.set(name, value).unwrap();
        }
        config.settings()
    };
    for host in ["amqp://h", "amqp://me:s3cr3t@h,amqp://g:5671"] {
        let error = set(host).unwrap_err();
        holds(&error, &["tls_ca_file", "host", "amqps://"]);
        assert!(!error.message().contains("s3cr3t"), "{error}");
    }
    for host in ["amqps://h", "amqp://h,amqps://g", "memory://m"] {
        set(host).unwrap();
    }
}

#[test]
fn names_are_checked() {
    refused("groups_exchange", "");
    refused("groups_exchange", "amq.direct");
    refused("groups_exchange", "a\nb");
    refused("groups_exchange", &"g".repeat(256));
    refused("queue_name", "a!b");
    refused("queue_name", &"q".repeat(87));
    refused("dispatch", "Thread");
    refused("dispatch", "");
    refused("queue_name", "amq.x");
}

#[test]
fn an_unknown_name_is_answered_with_the_nearest_and_all_others() {
    let message = |name: &str| {
        let error = Config::new().set(name, "1").unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Invalid);
        error.to_string()
    };
    for (slip, meant) in [
        ("hosts", "host"),
        ("expire", "expiry"),
        ("Local-Capacity", "local_capacity"),
        ("prefetch", "prefetch_count"),
        ("heartbeat_interval", "heartbeat"),
        ("group_exchange", "groups_exchange"),
        ("max_inflight", "max_in_flight"),
        ("conect_timeout", "connect_timeout"),
    ] {
        let message = message(slip);
        assert!(message.contains(&format!("'{slip}'")), "{message}");
        // In quotes is what was meant; all others are listed without.
        assert!(message.contains(&format!("'{meant}'")), "{message}");
    }
    let message_of_another = message("colour");
    for spec in options() {
        assert!(message_of_another.contains(spec.name));
        assert!(!message_of_another.contains(&format!("'{}'", spec.name)));
    }
    message("");
    assert!(message(&"x".repeat(1000)).len() < 500);
}

#[test]
fn no_text_shows_the_password() {
    let mut config = Config::new();
    for bad in [
        "amqp://me:s3cr3t@h:port",
        "me:s3cr3t@h",
        "amqp://me:/s3cr3t@h:1",
        "amqp://h,s3cr3t",
    ] {
        refused("host", bad);
        let error = config.set("host", bad).unwrap_err();
        assert!(!format!("{error} {error:?}").contains("s3cr3t"), "{error}");
        // Name and value swapped.
        let error = config.set(bad, "host").unwrap_err();
        assert!(!format!("{error} {error:?}").contains("s3cr3t"), "{error}");
    }
    config.set("host", "amqp://me:s3cr3t@h").unwrap();
    config.set("expiry", "5").unwrap();
    let shown = format!("{config:?} {:?}", config.settings().unwrap());
    assert!(!shown.contains("s3cr3t"), "{shown}");
    assert!(shown.contains("amqp://me:***@h:5672/%2F"), "{shown}");
    assert!(format!("{config:?}").contains(r#""expiry": "5""#));
}

#[test]
fn a_failed_set_keeps_what_was_there() {
    let mut config = Config::new();
    config.set("expiry", "5").unwrap();
    config.set("expiry", "x").unwrap_err();
    assert_eq!(config.settings().unwrap().expiry, Duration::from_secs(5));
    let copy = config.clone();
    config.set("expiry", "6").unwrap();
    assert_eq!(copy.settings().unwrap().expiry, Duration::from_secs(5));
    assert_eq!(config.settings().unwrap().expiry, Duration::from_secs(6));
}

#[test]
fn the_table_is_in_order() {
    let mut names: Vec<&str> = options().iter().map(|spec| spec.name).collect();
    assert_eq!(names.len(), 26);
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), 26);
    for spec in options() {
        assert_ne!(
            spec.default.is_empty(),
            spec.unset.is_empty(),
            "{} needs a default or words for it, not both",
            spec.name
        );
        assert!(
            !spec.doc.contains('\n') && spec.doc.ends_with('.'),
            "{}",
            spec.name
        );
        assert!(format!("{spec:?}").contains(spec.name));
    }
}

#[test]
fn markdown_holds_each_option_in_one_row() {
    let table = options_as_markdown();
    assert_eq!(table.lines().count(), 2 + options().len());
    for (row, spec) in table.lines().skip(2).zip(options()) {
        assert!(row.starts_with(&format!("| `{}` | ", spec.name)), "{row}");
        assert_eq!(row.matches('|').count(), 5, "{row}");
        assert!(
            row.contains(spec.default) && row.contains(spec.unset),
            "{row}"
        );
        assert!(
            row.contains(&spec.allowed()) && row.contains(spec.doc),
            "{row}"
        );
    }
}

#[test]
fn a_distance_counts_the_bytes_that_differ() {
    for (a, b, wanted) in [
        ("", "", 0),
        ("expiry", "expiry", 0),
        ("", "abc", 3),
        ("abc", "", 3),
        ("abc", "c", 2),
        ("c", "abc", 2),
        ("expiry", "expity", 1),
        ("expiry", "exipry", 2),
        ("kitten", "sitting", 3),
    ] {
        assert_eq!(distance(a, b), wanted, "{a} and {b}");
    }
}

#[test]
fn json_holds_each_option_with_its_range() {
    let table: serde_json::Value = serde_json::from_str(&options_as_json()).unwrap();
    let rows = table.as_array().unwrap();
    assert_eq!(rows.len(), options().len());
    for (row, spec) in rows.iter().zip(options()) {
        assert_eq!(row["name"], spec.name);
        assert_eq!(row["kind"], spec.kind.name());
        assert_eq!(row["default"], spec.default);
        assert_eq!(row["allowed"], spec.allowed());
        assert_eq!(row["doc"], spec.doc);
    }
    let row = |name: &str| rows.iter().find(|row| row["name"] == name).unwrap();
    assert_eq!(row("prefetch_count")["min"], 1);
    assert_eq!(row("prefetch_count")["max"], 65535);
    assert_eq!(row("expiry")["min"], 0.001);
    assert_eq!(row("heartbeat")["min"], 0);
    assert_eq!(row("dispatch")["choices"], json!(["thread", "poll"]));
}

proptest! {
    #[test]
    fn any_name_and_value_are_taken_or_refused(
        pick in 0..20_usize,
        value in "\\PC{0,20}|[0-9.]{0,24}",
        name in "\\PC{0,60}",
    ) {
        let mut config = Config::new();
        let _ = config.set(options()[pick].name, &value);
        let _ = config.set(&name, &value);
        let _ = config.settings();
        let _ = format!("{config:?}");
    }
}
