//! Lines of `name=value` as options, and values as lists of hosts.

use crate::config::{Config, OptionKind, Settings, options};
use crate::endpoint::{self, Endpoint, Hosts, Scheme};
use crate::error::{Error, ErrorKind};

use super::{Verdict, ensure};

/// What is under test; a test puts a broken one in its place.
pub(super) trait Options {
    fn set(&self, config: &mut Config, name: &str, value: &str) -> Result<(), Error> {
        config.set(name, value)
    }

    fn hosts(&self, text: &str) -> Result<Hosts, Error> {
        endpoint::parse(text)
    }

    fn show(&self, endpoint: &Endpoint) -> String {
        endpoint.to_string()
    }
}

/// The library as it is.
pub(super) struct Library;

impl Options for Library {}

/// A word that stands for a secret: no message of ours can hold it by chance.
pub(super) const SECRET: &str = "S3CR3T";

pub(super) fn check(library: &dyn Options, input: &[u8]) -> Verdict {
    let text = String::from_utf8_lossy(input);
    let mut config = Config::new();
    for line in text.split('\n') {
        let (name, value) = line.split_once('=').unwrap_or(("host", line));
        set(library, &mut config, name, value)?;
        hosts(library, value)?;
        // With a word in it that must never be seen again, wherever it falls.
        for at in [value.len() / 2, value.rfind('@').unwrap_or(value.len())] {
            if let Some((before, after)) = value.split_at_checked(at) {
                let with_secret = format!("{before}{SECRET}{after}");
                set(library, &mut Config::new(), "host", &with_secret)?;
                hosts(library, &with_secret)?;
            }
        }
    }
    settings(&config)
}

/// What the option would become: `None` if it must be refused.
fn expected(kind: OptionKind, name: &str, value: &str) -> Option<()> {
    // Nine digits of fraction and no more: what is below a nanosecond counts for nothing.
    let nanoseconds = || {
        let (whole, fraction) = value.split_once('.').unwrap_or((value, "0"));
        let digits = |text: &str| !text.is_empty() && text.chars().all(|c| c.is_ascii_digit());
        if !digits(whole) || !digits(fraction) {
            return None;
        }
        let whole: u128 = match whole.trim_start_matches('0') {
            "" => 0,
            long if long.len() > 20 => return None,
            short => short.parse().ok()?,
        };
        let fraction = format!("{:0<9}", fraction);
        Some(whole * 1_000_000_000 + fraction[..9].parse::<u128>().ok()?)
    };
    let number = || {
        let digits = !value.is_empty() && value.chars().all(|c| c.is_ascii_digit());
        if !digits {
            return None;
        }
        match value.trim_start_matches('0') {
            "" => Some(0),
            long if long.len() > 20 => None,
            short => short.parse::<u128>().ok(),
        }
    };
    let good = match kind {
        OptionKind::Seconds(most) => {
            (1_000_000..=u128::from(most) * 1_000_000_000).contains(&nanoseconds()?)
        }
        OptionKind::SecondsOr(most, word) => {
            value == word
                || (word == "0" && nanoseconds() == Some(0))
                || (1_000_000..=u128::from(most) * 1_000_000_000).contains(&nanoseconds()?)
        }
        OptionKind::WholeSeconds(most) => {
            let value = nanoseconds()?;
            value % 1_000_000_000 == 0 && value <= u128::from(most) * 1_000_000_000
        }
        OptionKind::Count(least, most) | OptionKind::Bytes(least, most) => {
            (u128::from(least)..=u128::from(most)).contains(&number()?)
        }
        OptionKind::Choice(words) => words.contains(&value),
        OptionKind::Path => true,
        OptionKind::Text(_) => match name {
            "groups_exchange" => {
                (1..=255).contains(&value.len())
                    && !value.starts_with("amq.")
                    && !value.chars().any(char::is_control)
            }
            "queue_name" => {
                (1..=86).contains(&value.len())
                    && !value.starts_with("amq.")
                    && value
                        .chars()
                        .all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c))
            }
            "tls_ca_pem" => true, // a layer reads it
            other => panic!("a text of no known rule: {other}"),
        },
    };
    good.then_some(())
}

/// Sets one option and holds the answer against the table.
fn set(library: &dyn Options, config: &mut Config, name: &str, value: &str) -> Verdict {
    let before = settings_of(config);
    let result = library.set(config, name, value);
    let spec = options().iter().find(|spec| spec.name == name);
    if let Err(error) = &result {
        ensure!(error.kind() == ErrorKind::Invalid, "{:?}", error.kind());
        let said = error.to_string();
        ensure!(said.len() < 2048, "an error of {} bytes", said.len());
        ensure!(
            spec.is_none() || said.contains(&format!("'{name}'")),
            "the error does not name option {name}: {said}"
        );
        ensure!(
            ["allowed", "reserves", "there are", "must be"]
                .iter()
                .any(|words| said.contains(words)),
            "the error does not say what is allowed: {said}"
        );
        ensure!(
            settings_of(config) == before,
            "a value that was refused changed the config: {name}={value}"
        );
        if name == "host" {
            no_part_shown(&said, value)?;
            no_part_shown(&format!("{error:?}"), value)?;
        }
    }
    match spec {
        None => ensure!(result.is_err(), "there is no option {name:?}"),
        // Empty takes back an option that has no default.
        Some(spec) if value.is_empty() && spec.default.is_empty() => {
            ensure!(result.is_ok(), "{name} was not taken back: {result:?}");
        }
        Some(spec) if spec.name == "host" => {
            ensure!(
                result.is_ok() == library.hosts(value).is_ok(),
                "host {value:?}: {result:?}"
            );
            let mut alone = Config::new();
            let _ = library.set(&mut alone, name, value);
            ensure!(
                !format!("{alone:?}").contains(SECRET) || secret_is_public(library, value),
                "the config shows the password: {alone:?}"
            );
        }
        Some(spec) => {
            let good = expected(spec.kind, name, value).is_some();
            ensure!(
                result.is_ok() == good,
                "{name}={value:?} gives {result:?}; allowed is {}",
                spec.allowed()
            );
        }
    }
    Ok(())
}

/// The settings, where one TLS file without the other does not stand in the way.
fn settings_of(config: &Config) -> Option<Settings> {
    config.settings().ok()
}

/// What holds for any settings that are made of options which were taken.
fn settings(config: &Config) -> Verdict {
    let settings = match config.settings() {
        Ok(settings) => settings,
        Err(error) => {
            let said = error.to_string();
            ensure!(
                said.contains("tls_cert_file") && said.contains("tls_key_file"),
                "options that were taken one by one are refused: {said}"
            );
            return Ok(());
        }
    };
    let seconds = |duration: std::time::Duration| duration.as_secs_f64();
    for (name, value, least, most) in [
        ("expiry", seconds(settings.expiry), 0.001, 4_294_967.0),
        (
            "group_expiry",
            settings.group_expiry.map_or(1.0, seconds),
            0.001,
            315_360_000.0,
        ),
        (
            "stall_after",
            settings.stall_after.map_or(1.0, seconds),
            0.001,
            3600.0,
        ),
        (
            "channel_capacity",
            settings.channel_capacity as f64,
            1.0,
            2_147_483_647.0,
        ),
        (
            "total_capacity",
            settings.total_capacity as f64,
            1.0,
            2_147_483_647.0,
        ),
        (
            "local_expiry",
            seconds(settings.local_expiry),
            0.001,
            1500.0,
        ),
        ("timeout", seconds(settings.timeout), 0.001, 86_400.0),
        (
            "settle",
            settings.settle.map_or(1.0, seconds),
            0.001,
            3600.0,
        ),
        (
            "connect_timeout",
            seconds(settings.connect_timeout),
            0.001,
            3600.0,
        ),
        (
            "local_capacity",
            settings.local_capacity as f64,
            0.0,
            2_147_483_647.0,
        ),
        (
            "remote_capacity",
            settings.remote_capacity.into(),
            1.0,
            2_147_483_647.0,
        ),
        (
            "prefetch_count",
            settings.prefetch_count.into(),
            1.0,
            65_535.0,
        ),
        (
            "max_in_flight",
            settings.max_in_flight as f64,
            1.0,
            10_000_000.0,
        ),
        (
            "max_message_size",
            settings.max_message_size as f64,
            1.0,
            536_870_912.0,
        ),
        (
            "dispatch_threads",
            settings.dispatch_threads as f64,
            1.0,
            256.0,
        ),
    ] {
        ensure!(
            (least..=most).contains(&value),
            "{name} became {value}, outside {least} to {most}"
        );
    }
    Ok(())
}

/// Whether the word stands where it is meant to be seen.
fn secret_is_public(library: &dyn Options, value: &str) -> bool {
    match library.hosts(value) {
        Ok(Hosts::Memory(name)) => name.contains(SECRET),
        Ok(Hosts::Amqp(list)) => list.iter().any(|endpoint| {
            [&endpoint.user, &endpoint.vhost, &endpoint.host]
                .iter()
                .any(|part| part.contains(SECRET))
        }),
        Err(_) => false,
    }
}

/// An error about hosts repeats nothing of them: any part may be the password.
fn no_part_shown(said: &str, value: &str) -> Verdict {
    ensure!(
        !said.contains(SECRET) || !value.contains(SECRET),
        "an error shows a password: {said}"
    );
    Ok(())
}

/// Whether each part stands somewhere in the text, percent-decoded, or is what holds without it.
fn stands_in(text: &str, endpoint: &Endpoint) -> bool {
    let decoded: Vec<u8> = percent_encoding::percent_decode_str(text).collect();
    let holds =
        |part: &str| part.is_empty() || decoded.windows(part.len()).any(|at| at == part.as_bytes());
    let default_port = match endpoint.scheme {
        Scheme::Amqp => 5672,
        Scheme::Amqps => 5671,
    };
    let port = text.split(':').skip(1).any(|rest| {
        let end = rest.find(|c: char| !c.is_ascii_digit());
        let digits = rest.get(..end.unwrap_or(rest.len())).unwrap_or_default();
        digits.parse() == Ok(endpoint.port)
    });
    (port || endpoint.port == default_port)
        && holds(&endpoint.host)
        && (holds(&endpoint.user) || endpoint.user == "guest")
        && (holds(&endpoint.password) || endpoint.password == "guest")
        && (holds(&endpoint.vhost) || endpoint.vhost == "/")
}

/// Reads a list of hosts and holds each against what an address may be.
fn hosts(library: &dyn Options, text: &str) -> Verdict {
    let list = match library.hosts(text) {
        Err(error) => {
            ensure!(error.kind() == ErrorKind::Invalid, "{:?}", error.kind());
            no_part_shown(&format!("{error} {error:?}"), text)?;
            return Ok(());
        }
        Ok(Hosts::Memory(name)) => {
            let plain = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
            ensure!(
                !name.is_empty() && name.chars().all(plain),
                "a memory broker of name {name:?}"
            );
            return Ok(());
        }
        Ok(Hosts::Amqp(list)) => list,
    };
    ensure!(
        list.len() == text.matches(',').count() + 1,
        "{} hosts of {text:?}",
        list.len()
    );
    for endpoint in &list {
        let Endpoint {
            scheme,
            host,
            port,
            vhost,
            user,
            password,
        } = endpoint;
        ensure!(
            !host.is_empty() && *port != 0 && !user.is_empty() && (1..=255).contains(&vhost.len()),
            "{endpoint:?} of {text:?}"
        );
        ensure!(
            !format!("{vhost}{user}{password}").contains('\0'),
            "a NUL in {endpoint:?}"
        );
        let is_name = host
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c));
        ensure!(
            is_name || host.parse::<std::net::Ipv6Addr>().is_ok(),
            "host {host:?} of {text:?}"
        );
        ensure!(
            stands_in(text, endpoint),
            "{endpoint:?} with password {password:?} is not what {text:?} says"
        );
        let shown = library.show(endpoint);
        // The parts that are to be seen; what else the text holds is a secret.
        let scheme_shown = match scheme {
            Scheme::Amqp => "amqp",
            Scheme::Amqps => "amqps",
        };
        ensure!(
            shown.starts_with(&format!("{scheme_shown}://")) && shown.contains(":***@"),
            "{shown}"
        );
        let seen_anyway = [user, vhost, host].iter().any(|part| part.contains(SECRET));
        ensure!(
            seen_anyway || !format!("{shown} {endpoint:?}").contains(SECRET),
            "a password is shown: {shown}"
        );
        // What is shown can be read again, and all but the password is the same.
        let Ok(Hosts::Amqp(again)) = library.hosts(&shown) else {
            return Err(format!("{shown} of {text:?} cannot be read again"));
        };
        let expected = Endpoint {
            password: "***".to_owned(),
            ..endpoint.clone()
        };
        ensure!(again == [expected], "{shown} is read as {again:?}");
    }
    Ok(())
}
