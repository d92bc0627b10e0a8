//! The options of a layer, in one table: parsing, README's table and the checks of the bindings
//! derive from it.

mod settings;
mod table;

use std::collections::BTreeMap;
use std::fmt;

use crate::endpoint::{self, Hosts, Scheme};
use crate::error::Error;
use crate::name;

pub(crate) use self::settings::{Dispatch, Pem, Settings, Tls};
pub use self::table::{OptionKind, OptionSpec, options, options_as_json, options_as_markdown};

use self::table::{
    CHANNEL_CAPACITY, HOST, LOCAL_EXPIRY, MAX_LOCAL_EXPIRY, OPTIONS, PREFETCH_COUNT, TLS_CA_PEM,
    TOTAL_CAPACITY,
};

/// Defaults, before `local_capacity` is looked at.
const DEFAULT_PREFETCH: u16 = 10;
const DEFAULT_CHANNEL_CAPACITY: usize = 100;
const DEFAULT_TOTAL_CAPACITY: usize = 100_000;

/// The options that somebody set. Copied by a layer when it is made.
#[derive(Clone, Default)]
pub struct Config {
    /// Values that were found good, by the names of the table.
    values: BTreeMap<&'static str, String>,
}

impl Config {
    /// No option set: all defaults.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets the option `name`. An empty value takes back an option whose default is empty.
    ///
    /// An error leaves the config as it was.
    pub fn set(&mut self, name: &str, value: &str) -> Result<(), Error> {
        let spec = find(name)?;
        if value.is_empty() && spec.default.is_empty() {
            self.values.remove(spec.name);
            return Ok(());
        }
        (spec.apply)(spec, value, &mut Settings::blank())?;
        self.values.insert(spec.name, value.to_owned());
        Ok(())
    }

    /// All options read, the defaults filled in, and what needs several of them checked.
    pub(crate) fn settings(&self) -> Result<Settings, Error> {
        let mut settings = Settings::blank();
        for spec in OPTIONS {
            match self
                .values
                .get(spec.name)
                .map_or(spec.default, String::as_str)
            {
                "" => {}
                value => (spec.apply)(spec, value, &mut settings)?,
            }
        }
        if !self.is_set(PREFETCH_COUNT) {
            settings.prefetch_count = match u16::try_from(settings.local_capacity) {
                Ok(capacity @ 1..DEFAULT_PREFETCH) => capacity,
                _ => DEFAULT_PREFETCH,
            };
        }
        if !self.is_set(CHANNEL_CAPACITY) {
            // What the broker sends ahead may all be for one channel, however prompt its receiver.
            settings.channel_capacity = DEFAULT_CHANNEL_CAPACITY
                .max(settings.local_capacity)
                .max(settings.prefetch_count.into());
        }
        if !self.is_set(TOTAL_CAPACITY) {
            settings.total_capacity = DEFAULT_TOTAL_CAPACITY.max(settings.local_capacity);
        }
        if !self.is_set(LOCAL_EXPIRY) {
            settings.local_expiry = settings.expiry.min(MAX_LOCAL_EXPIRY);
        }
        if settings.tls.cert_file.is_some() != settings.tls.key_file.is_some() {
            return Err(Error::invalid(
                "options 'tls_cert_file' and 'tls_key_file': only one of them is set; set both, \
                 or neither for no client certificate",
            ));
        }
        if settings.tls != Tls::default() && is_all_plain(&settings.hosts) {
            return Err(Error::invalid(
                "options 'tls_ca_file', 'tls_ca_pem', 'tls_cert_file', 'tls_key_file': set, but no \
                 URL of option 'host' begins with amqps://, so that nothing would be encrypted; write amqps:// \
                 (and the port for TLS, usually 5671), or unset them",
            ));
        }
        Ok(settings)
    }

    fn is_set(&self, name: &str) -> bool {
        self.values.contains_key(name)
    }
}

/// Whether messages go over a network and nowhere in TLS.
fn is_all_plain(hosts: &Hosts) -> bool {
    match hosts {
        Hosts::Memory(_) => false,
        Hosts::Amqp(endpoints) => endpoints
            .iter()
            .all(|endpoint| endpoint.scheme == Scheme::Amqp),
    }
}

impl fmt::Debug for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut map = f.debug_map();
        for (name, value) in &self.values {
            match *name {
                // The parsed form hides the password.
                HOST => map.entry(name, &endpoint::parse(value).ok()),
                TLS_CA_PEM => map.entry(name, &Pem(value.clone())),
                _ => map.entry(name, value),
            };
        }
        map.finish()
    }
}

/// The option `name`, or an error that helps to find it.
fn find(name: &str) -> Result<&'static OptionSpec, Error> {
    if let Some(spec) = OPTIONS.iter().find(|spec| spec.name == name) {
        return Ok(spec);
    }
    let names: Vec<&str> = OPTIONS.iter().map(|spec| spec.name).collect();
    // Somebody may have swapped name and value, and a value of `host` holds a password.
    let shown = if name.len() <= 40 && name.bytes().all(name::is_name_byte) {
        format!("there is no option '{name}'")
    } else {
        "there is no option of this name (it is not shown: it looks like a value)".to_owned()
    };
    let nearest = nearest(name)
        .map(|near| format!("; did you mean '{near}'?"))
        .unwrap_or_default();
    Err(Error::invalid(format!(
        "{shown}{nearest}; there are {}",
        names.join(", ")
    )))
}

/// The name in the table that `name` is a slip of, if there is one.
fn nearest(name: &str) -> Option<&'static str> {
    if name.len() > 40 {
        return None;
    }
    let name = name.to_ascii_lowercase().replace(['-', '.', ' '], "_");
    // Who writes `prefetch` or `heartbeat_interval` has not made a slip of the finger.
    let is_part =
        |near: &str| name.len() >= 4 && (near.starts_with(&name) || name.starts_with(near));
    OPTIONS
        .iter()
        .map(|spec| match is_part(spec.name) {
            true => (1, spec.name),
            false => (distance(&name, spec.name), spec.name),
        })
        .min()
        .filter(|(distance, near)| *distance <= near.len() / 3)
        .map(|(_, near)| near)
}

/// How many bytes must be put in, left out or changed to make `a` into `b`.
fn distance(a: &str, b: &str) -> usize {
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, left) in a.bytes().enumerate() {
        // `diagonal` is the cell above and to the left of the one to be filled.
        let mut diagonal = i;
        let mut last = i + 1;
        for (cell, right) in row.iter_mut().skip(1).zip(b.bytes()) {
            let above = *cell;
            let changed = diagonal + usize::from(left != right);
            last = changed.min(above + 1).min(last + 1);
            *cell = last;
            diagonal = above;
        }
        if let Some(first) = row.first_mut() {
            *first = i + 1;
        }
    }
    row.last().copied().unwrap_or_default()
}

#[cfg(test)]
mod tests;
