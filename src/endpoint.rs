//! Option `host`: a list of URLs becomes schemes, addresses, vhosts and credentials. No error and
//! no view of an endpoint shows a password.

use std::borrow::Cow;
use std::fmt;
use std::net::Ipv6Addr;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};

use crate::error::Error;
use crate::name::is_name_byte;

/// The longest text that AMQP can carry as a vhost, in bytes.
const MAX_VHOST_BYTES: usize = 255;

/// What stays as it is in a URL that we show.
const ESCAPED: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'_')
    .remove(b'.')
    .remove(b'~');

/// What all errors end with. A password that was not encoded is the usual reason for each of them.
const HINT: &str = "allowed is amqp://user:password@host:port/vhost or amqps://..., several by \
                    comma, where each of '@', ':', '/', '?', '#', ',', '%' in user, password or \
                    vhost is percent-encoded ('%40' for '@'); or memory://name alone";

/// How to talk to a host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Scheme {
    /// Plain AMQP.
    Amqp,
    /// AMQP inside TLS.
    Amqps,
}

impl Scheme {
    fn default_port(self) -> u16 {
        match self {
            Self::Amqp => 5672,
            Self::Amqps => 5671,
        }
    }
}

impl fmt::Display for Scheme {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Amqp => "amqp",
            Self::Amqps => "amqps",
        })
    }
}

/// One RabbitMQ host and what to log in with.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Endpoint {
    pub(crate) scheme: Scheme,
    /// A name, an IPv4 address, or an IPv6 address without its brackets.
    pub(crate) host: String,
    pub(crate) port: u16,
    pub(crate) vhost: String,
    pub(crate) user: String,
    pub(crate) password: String,
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let user = utf8_percent_encode(&self.user, ESCAPED);
        let vhost = utf8_percent_encode(&self.vhost, ESCAPED);
        write!(f, "{}://{user}:***@", self.scheme)?;
        if self.host.contains(':') {
            write!(f, "[{}]", self.host)?;
        } else {
            f.write_str(&self.host)?;
        }
        write!(f, ":{}/{vhost}", self.port)
    }
}

impl fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{self}\"")
    }
}

/// Where the broker is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Hosts {
    /// The in-process broker of this name.
    Memory(String),
    /// RabbitMQ hosts, to be tried in turn. Never empty.
    Amqp(Vec<Endpoint>),
}

/// Reads the whole option. An error names the place of the URL in the list, never a part of it: of
/// a URL that cannot be read, any part may hold the password.
pub(crate) fn parse(text: &str) -> Result<Hosts, Error> {
    let text = text.trim();
    if let Some(name) = strip_scheme(text, "memory") {
        return parse_memory(name);
    }
    let mut endpoints = Vec::new();
    for (i, url) in text.split(',').enumerate() {
        let endpoint = parse_url(url.trim())
            .map_err(|why| Error::invalid(format!("URL {}: {why}; {HINT}", i + 1)))?;
        endpoints.push(endpoint);
    }
    Ok(Hosts::Amqp(endpoints))
}

fn parse_memory(name: &str) -> Result<Hosts, Error> {
    if name.is_empty() || !name.bytes().all(is_name_byte) {
        return Err(Error::invalid(
            "the name after memory:// must be of ASCII letters, digits, '-', '_' and '.', not \
             empty, and memory:// cannot be one of several hosts",
        ));
    }
    Ok(Hosts::Memory(name.to_owned()))
}

fn parse_url(url: &str) -> Result<Endpoint, Cow<'static, str>> {
    if url.is_empty() {
        return Err("it is empty".into());
    }
    let (scheme, rest) = if let Some(rest) = strip_scheme(url, "amqp") {
        (Scheme::Amqp, rest)
    } else if let Some(rest) = strip_scheme(url, "amqps") {
        (Scheme::Amqps, rest)
    } else if strip_scheme(url, "memory").is_some() {
        return Err("memory:// cannot be one of several hosts".into());
    } else {
        return Err("it does not begin with amqp:// or amqps://".into());
    };
    if rest.contains('?') {
        return Err("a query string ('?...') is not read; set options by their names".into());
    }
    if rest.contains('#') {
        return Err("a fragment ('#...') has no meaning here".into());
    }
    let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
    // A password with an '@' of its own is common, and the last one ends it beyond doubt.
    let (credentials, address) = match authority.rsplit_once('@') {
        Some((credentials, address)) => (Some(credentials), address),
        None => (None, authority),
    };
    let (user, password) = parse_credentials(credentials)?;
    let (host, port) = parse_address(address)?;
    Ok(Endpoint {
        scheme,
        host,
        port: port.unwrap_or(scheme.default_port()),
        vhost: parse_vhost(path)?,
        user,
        password,
    })
}

/// `user:password`; what is absent is `guest`.
fn parse_credentials(text: Option<&str>) -> Result<(String, String), Cow<'static, str>> {
    let (user, password) = match text.map(|text| text.split_once(':').ok_or(text)) {
        None => ("guest", "guest"),
        Some(Err(user)) => (user, "guest"),
        Some(Ok(both)) => both,
    };
    if user.is_empty() {
        return Err("the user before '@' is empty".into());
    }
    Ok((decode(user, "the user")?, decode(password, "the password")?))
}

/// `host`, `host:port`, `[IPv6]` or `[IPv6]:port`.
fn parse_address(text: &str) -> Result<(String, Option<u16>), Cow<'static, str>> {
    let (host, port) = if let Some(rest) = text.strip_prefix('[') {
        let Some((address, rest)) = rest.split_once(']') else {
            return Err("the '[' of an IPv6 address has no ']'".into());
        };
        if address.parse::<Ipv6Addr>().is_err() {
            return Err("what is inside '[]' is not an IPv6 address".into());
        }
        let port = match rest.strip_prefix(':') {
            None if rest.is_empty() => None,
            None => return Err("between ']' and the port there must be a ':'".into()),
            port => port,
        };
        (address, port)
    } else {
        let (host, port) = match text.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (text, None),
        };
        if host.is_empty() {
            return Err("it names no host".into());
        }
        if !host.bytes().all(is_name_byte) {
            return Err(
                "a host is of ASCII letters, digits, '-', '_' and '.', or an IPv6 address in '[]'"
                    .into(),
            );
        }
        (host, port)
    };
    let port = match port {
        None => None,
        // `parse` alone would take a '+'.
        Some(digits) if digits.bytes().all(|byte| byte.is_ascii_digit()) => digits
            .parse()
            .ok()
            .filter(|port| *port != 0)
            .map(Some)
            .ok_or("the port is not a number from 1 to 65535")?,
        Some(_) => return Err("the port is not a number from 1 to 65535".into()),
    };
    Ok((host.to_owned(), port))
}

/// What follows the first '/'. A slash inside is taken as it is, as Python's packages do: so the
/// frequent `//` is the vhost `/`.
fn parse_vhost(path: &str) -> Result<String, Cow<'static, str>> {
    if path.is_empty() {
        return Ok("/".to_owned());
    }
    let vhost = decode(path, "the vhost")?;
    if vhost.len() > MAX_VHOST_BYTES {
        return Err(format!("the vhost is longer than {MAX_VHOST_BYTES} bytes").into());
    }
    Ok(vhost)
}

/// Percent-decodes `text`; `what` names it in an error.
fn decode(text: &str, what: &str) -> Result<String, Cow<'static, str>> {
    // The crate leaves a '%' alone that begins no escape. We cannot know what was meant.
    let complete = text.split('%').skip(1).all(|after| {
        let mut digits = after.bytes().take(2);
        let mut is_hex = || digits.next().is_some_and(|byte| byte.is_ascii_hexdigit());
        is_hex() && is_hex()
    });
    if !complete {
        return Err(format!("in {what} a '%' is not followed by two hexadecimal digits").into());
    }
    let decoded = percent_decode_str(text)
        .decode_utf8()
        .map_err(|_| format!("{what} is not UTF-8 once percent-decoded"))?;
    // SASL PLAIN separates its fields by NUL, and no vhost can be typed with it.
    if decoded.contains('\0') {
        return Err(format!("{what} holds a NUL").into());
    }
    Ok(decoded.into_owned())
}

/// What follows `scheme://`, whatever the case of its letters.
fn strip_scheme<'a>(url: &'a str, scheme: &str) -> Option<&'a str> {
    let (found, rest) = url.split_once("://")?;
    found.eq_ignore_ascii_case(scheme).then_some(rest)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic)]

    use proptest::prelude::*;

    use super::*;
    use crate::error::ErrorKind;

    fn one(text: &str) -> Endpoint {
        match parse(text).unwrap() {
            Hosts::Amqp(mut list) if list.len() == 1 => list.pop().unwrap(),
            other => panic!("{text}: {other:?}"),
        }
    }

    /// That `bad` is refused and `good`, which differs in what is wrong alone, is taken.
    fn refused(bad: &str, good: &str) {
        let error = parse(bad).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Invalid, "{bad}");
        assert!(parse(good).is_ok(), "{good}");
    }

    /// The first number in the error for `bad`.
    fn number_in_error(bad: &str) -> usize {
        let message = parse(bad).unwrap_err().to_string();
        let digits = message.split(|c: char| !c.is_ascii_digit());
        digits
            .filter_map(|digits| digits.parse().ok())
            .next()
            .unwrap()
    }

    #[test]
    fn a_whole_url() {
        let endpoint = one("amqp://me:secret@rabbit.example.org:1234/asgi");
        assert_eq!(endpoint.scheme, Scheme::Amqp);
        assert_eq!(endpoint.host, "rabbit.example.org");
        assert_eq!(endpoint.port, 1234);
        assert_eq!(endpoint.vhost, "asgi");
        assert_eq!(endpoint.user, "me");
        assert_eq!(endpoint.password, "secret");
    }

    #[test]
    fn what_is_absent_has_a_default() {
        let endpoint = one("amqp://rabbit");
        assert_eq!(endpoint.port, 5672);
        assert_eq!(endpoint.vhost, "/");
        assert_eq!(
            (endpoint.user.as_str(), endpoint.password.as_str()),
            ("guest", "guest")
        );
        assert_eq!(one("amqps://rabbit").port, 5671);
        assert_eq!(one("amqps://rabbit").scheme, Scheme::Amqps);
        assert_eq!(one("AMQPS://rabbit").scheme, Scheme::Amqps);
        let user_only = one("amqp://me@rabbit");
        assert_eq!(
            (user_only.user.as_str(), user_only.password.as_str()),
            ("me", "guest")
        );
        assert_eq!(one("amqp://me:@rabbit").password, "");
    }

    #[test]
    fn the_vhost_is_what_follows_the_slash() {
        assert_eq!(one("amqp://h").vhost, "/");
        assert_eq!(one("amqp://h/").vhost, "/");
        assert_eq!(one("amqp://h/%2f").vhost, "/");
        assert_eq!(one("amqp://h/%2F").vhost, "/");
        assert_eq!(one("amqp://h//").vhost, "/");
        assert_eq!(one("amqp://h/a%20b").vhost, "a b");
        assert_eq!(one("amqp://h/a/b").vhost, "a/b");
        assert_eq!(
            one(&format!("amqp://h/{}", "v".repeat(255))).vhost.len(),
            255
        );
        let vhost = |length| format!("amqp://h/{}", "v".repeat(length));
        refused(&vhost(256), &vhost(255));
    }

    #[test]
    fn user_and_password_are_percent_decoded() {
        let endpoint = one("amqp://a%40b:p%3a%2F%25%2c%C3%A9@h");
        assert_eq!(endpoint.user, "a@b");
        assert_eq!(endpoint.password, "p:/%,\u{e9}");
        assert_eq!(one("amqp://me:p@ss@h").password, "p@ss");
        assert_eq!(one("amqp://me:a:b@h").password, "a:b");
        refused("amqp://me:100%@h", "amqp://me:100%25@h");
        refused("amqp://me:1%4@h", "amqp://me:1%40@h");
        refused("amqp://me:1%\u{e9}@h", "amqp://me:1%25\u{e9}@h");
        refused("amqp://m%zz:p@h", "amqp://m%7a:p@h");
        refused("amqp://h/%f", "amqp://h/%2f");
        refused("amqp://me:%ff@h", "amqp://me:%7f@h");
        refused("amqp://me:a%00b@h", "amqp://me:a%01b@h");
    }

    #[test]
    fn ipv6_addresses_are_in_brackets() {
        let endpoint = one("amqp://guest:guest@[::1]:5673/asgi");
        assert_eq!(endpoint.host, "::1");
        assert_eq!(endpoint.port, 5673);
        assert_eq!(endpoint.to_string(), "amqp://guest:***@[::1]:5673/asgi");
        assert_eq!(one("amqps://[fe80::1]").port, 5671);
        refused("amqp://[::1", "amqp://[::1]");
        refused("amqp://[::g]", "amqp://[::f]");
        refused("amqp://[::1]5672", "amqp://[::1]:5672");
        refused("amqp://[::1]:", "amqp://[::1]");
        refused("amqp://::1", "amqp://[::1]");
    }

    #[test]
    fn several_urls_keep_their_order() {
        let Hosts::Amqp(list) = parse(" amqp://a , amqps://b:1/x,amqp://c ").unwrap() else {
            panic!("not AMQP");
        };
        let shown: Vec<String> = list.iter().map(Endpoint::to_string).collect();
        assert_eq!(
            shown,
            [
                "amqp://guest:***@a:5672/%2F",
                "amqps://guest:***@b:1/x",
                "amqp://guest:***@c:5672/%2F",
            ]
        );
        refused("amqp://a,,amqp://b", "amqp://a,amqp://b");
        refused("amqp://a,", "amqp://a");
        refused("amqp://a,b", "amqp://a,amqp://b");
        refused("", "amqp://a");
    }

    #[test]
    fn an_error_says_which_url_of_several_it_is_about() {
        for (bad, number) in [
            ("", 1),
            ("a,amqp://b", 1),
            ("amqp://a,,amqp://b", 2),
            ("amqp://a,b", 2),
            ("amqp://a,amqp://b,amqp://", 3),
        ] {
            assert_eq!(number_in_error(bad), number, "{bad}");
        }
    }

    #[test]
    fn what_is_not_an_amqp_url_is_refused() {
        refused("http://h", "amqp://h");
        refused("rabbit:5672", "amqp://rabbit:5672");
        refused("amqp:/h", "amqp://h");
        refused("amqp://", "amqp://h");
        refused("amqp:///vhost", "amqp://h/vhost");
        refused("amqp://:5672", "amqp://h:5672");
        refused("amqp://@h", "amqp://u@h");
        refused("amqp://:p@h", "amqp://u:p@h");
        refused("amqp://h h", "amqp://h-h");
        refused("amqp://h\u{e9}", "amqp://he");
        refused("amqp://h/v?heartbeat=5", "amqp://h/v");
        refused("amqp://h#x", "amqp://h");
        for port in ["", "0", "65536", "-1", "+5672", "x", "5672x"] {
            refused(&format!("amqp://h:{port}"), "amqp://h:65535");
        }
    }

    #[test]
    fn memory_stands_alone() {
        assert_eq!(
            parse("memory://test-1_a.b").unwrap(),
            Hosts::Memory("test-1_a.b".to_owned())
        );
        for bad in ["memory://", "memory://a b", "memory://a/b", "memory://a,b"] {
            refused(bad, "memory://a");
        }
        refused("memory://a,amqp://h", "amqp://a,amqp://h");
        refused("amqp://h,memory://a", "amqp://h,amqp://a");
    }

    #[test]
    fn no_view_shows_the_password() {
        let endpoint = one("amqp://m%40e:s3cr3t@h/v%2F");
        assert_eq!(endpoint.to_string(), "amqp://m%40e:***@h:5672/v%2F");
        let hosts = parse("amqp://me:s3cr3t@h").unwrap();
        assert_eq!(
            format!("{hosts:?}"),
            r#"Amqp(["amqp://me:***@h:5672/%2F"])"#
        );
        assert!(!format!("{endpoint:#?}").contains("s3cr3t"));
    }

    #[test]
    fn what_is_shown_can_be_read_again() {
        let endpoint = one("amqps://a%2Fb:p@[::1]:7/%2Fx%20y");
        let again = one(&endpoint.to_string());
        assert_eq!(again.password, "***");
        assert_eq!(again.user, endpoint.user);
        assert_eq!(again.vhost, endpoint.vhost);
        assert_eq!(again.host, endpoint.host);
    }

    /// A word that no message of ours can hold by chance.
    const SECRET: &str = "S3CR3T";

    proptest! {
        #[test]
        fn no_error_shows_the_password(
            before in "(amqp://)?[a-z:@/?#,%\\[\\]]{0,8}",
            after in "[a-z0-9:@/?#,%\\[\\]]{0,8}",
        ) {
            let text = format!("{before}{SECRET}{after}");
            if let Err(error) = parse(&text) {
                let shown = format!("{error} {error:?}");
                prop_assert!(!shown.contains(SECRET), "{}", shown);
            }
        }

        #[test]
        fn any_text_is_read_or_refused(text in "\\PC{0,40}") {
            let _ = parse(&text);
            let _ = parse(&format!("amqp://{text}"));
        }
    }

    /// A '/', '?' or '#' that is not percent-encoded ends what is taken for user, password and host, so
    /// that a part of the password is read as the host, the port or the vhost.
    #[test]
    fn no_error_shows_a_part_of_a_password_that_is_not_encoded() {
        for url in [
            "amqp://user:S3CR3T/word@host",
            "amqp://user:S3CR3T/S3CR3T@host/vhost",
            "amqp://user:pass/S3CR3T@host",
            "amqp://user:S3CR3T?word@host",
            "amqp://user:S3CR3T#word@host",
            "amqp://user:S3CR3T,word@host",
            "amqp://user:S3CR3T:word/@host",
            "amqp://user:[S3CR3T/word@host",
            "amqp://user:%zzS3CR3T@host",
            "amqp://S3CR3T word",
            "S3CR3T://user:S3CR3T@host",
        ] {
            let error = parse(url).unwrap_err();
            let shown = format!("{error} {error:?}");
            assert!(!shown.contains(SECRET), "{url}: {shown}");
        }
    }
}
