//! Names, labels, keys and ports: each function lists what is wrong with a text, in the words Kubernetes' users know.
//!
//! An empty list means the text is good. Which field it stands in is the caller's to say.

use std::net::IpAddr;

const LABEL: &str = "[a-z0-9]([-a-z0-9]*[a-z0-9])?";
const QUALIFIED: &str = "([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]";

/// A lowercase RFC 1123 label: namespaces, containers, hostnames.
pub fn dns_label(text: &str) -> Vec<String> {
    let mut problems = longer_than(63, text);
    if !is_dns_label(text) {
        problems.push(format!(
            "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and \
             end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is '{LABEL}')"
        ));
    }
    problems
}

/// A lowercase RFC 1123 subdomain: the name of most objects.
pub fn dns_subdomain(text: &str) -> Vec<String> {
    let mut problems = longer_than(253, text);
    if !text.split('.').all(is_dns_label) {
        problems.push(format!(
            "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must \
             start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is \
             '{LABEL}(\\.{LABEL})*')"
        ));
    }
    problems
}

/// A DNS-1035 label: the name of a Service.
pub fn dns1035_label(text: &str) -> Vec<String> {
    let mut problems = longer_than(63, text);
    if !(is_dns_label(text) && text.starts_with(|c: char| c.is_ascii_lowercase())) {
        problems.push(
            "a DNS-1035 label must consist of lower case alphanumeric characters or '-', start with an alphabetic \
             character, and end with an alphanumeric character (e.g. 'my-name',  or 'abc-123', regex used for \
             validation is '[a-z]([-a-z0-9]*[a-z0-9])?')"
                .to_owned(),
        );
    }
    problems
}

/// A name that becomes one segment of a URL: roles, bindings and others with few rules.
pub fn path_segment(text: &str) -> Vec<String> {
    let mut problems = Vec::new();
    if text == "." || text == ".." {
        problems.push(format!("may not be '{text}'"));
    }
    for mark in ['/', '%'] {
        if text.contains(mark) {
            problems.push(format!("may not contain '{mark}'"));
        }
    }
    problems
}

/// A key of labels, annotations, taints or finalizers: `name` or `prefix.example.com/name`.
pub fn qualified_name(text: &str) -> Vec<String> {
    let (prefix, name) = match text.split('/').collect::<Vec<_>>()[..] {
        [name] => (None, name),
        [prefix, name] => (Some(prefix), name),
        _ => {
            return vec![format!(
                "a qualified name must consist of alphanumeric characters, '-', '_' or '.', and must start and end \
                 with an alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for \
                 validation is '{QUALIFIED}') with an optional DNS subdomain prefix and '/' (e.g. 'example.com/MyName')"
            )];
        }
    };
    let mut problems = Vec::new();
    match prefix {
        Some("") => problems.push("prefix part must be non-empty".to_owned()),
        Some(prefix) => {
            problems.extend(dns_subdomain(prefix).into_iter().map(|problem| format!("prefix part {problem}")))
        }
        None => {}
    }
    if name.is_empty() {
        problems.push("name part must be non-empty".to_owned());
    }
    problems.extend(longer_than(63, name).into_iter().map(|problem| format!("name part {problem}")));
    if !is_qualified(name) {
        problems.push(format!(
            "name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an \
             alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is \
             '{QUALIFIED}')"
        ));
    }
    problems
}

/// The value of a label.
pub fn label_value(text: &str) -> Vec<String> {
    let mut problems = longer_than(63, text);
    if !text.is_empty() && !is_qualified(text) {
        problems.push(format!(
            "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must \
             start and end with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345', regex used \
             for validation is '({QUALIFIED})?')"
        ));
    }
    problems
}

/// A key of a ConfigMap or a Secret.
pub fn config_key(text: &str) -> Vec<String> {
    let mut problems = longer_than(253, text);
    if text.is_empty() || !text.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._".contains(&b)) {
        problems.push(
            "a valid config key must consist of alphanumeric characters, '-', '_' or '.' (e.g. 'key.name',  or \
             'KEY_NAME',  or 'key-name', regex used for validation is '[-._a-zA-Z0-9]+')"
                .to_owned(),
        );
    }
    match text {
        "." => problems.push("must not be '.'".to_owned()),
        ".." => problems.push("must not be '..'".to_owned()),
        _ if text.starts_with("..") => problems.push("must not start with '..'".to_owned()),
        _ => {}
    }
    problems
}

/// The name of an environment variable.
pub fn env_name(text: &str) -> Vec<String> {
    if !text.is_empty() && text.bytes().all(|b| (b' '..=b'~').contains(&b) && b != b'=') {
        return Vec::new();
    }
    vec!["a valid environment variable name must consist only of printable ASCII characters other than '='".to_owned()]
}

/// A port's number.
pub fn port(number: i64) -> Vec<String> {
    if (1..=65535).contains(&number) {
        return Vec::new();
    }
    vec!["must be between 1 and 65535, inclusive".to_owned()]
}

/// A port's name (RFC 6335): a container's, or a target port's.
pub fn port_name(text: &str) -> Vec<String> {
    let mut problems = longer_than(15, text);
    if !text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-') {
        problems.push("must contain only alpha-numeric characters (a-z, 0-9), and hyphens (-)".to_owned());
    }
    if !text.bytes().any(|b| b.is_ascii_lowercase()) {
        problems.push("must contain at least one letter (a-z)".to_owned());
    }
    if text.contains("--") {
        problems.push("must not contain consecutive hyphens".to_owned());
    }
    if text.starts_with('-') || text.ends_with('-') {
        problems.push("must not begin or end with a hyphen".to_owned());
    }
    problems
}

/// An IPv4 or IPv6 address.
pub fn ip(text: &str) -> Vec<String> {
    match text.parse::<IpAddr>() {
        Ok(_) => Vec::new(),
        Err(_) => vec!["must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)".to_owned()],
    }
}

fn longer_than(bytes_max: usize, text: &str) -> Vec<String> {
    if text.len() > bytes_max { vec![format!("must be no more than {bytes_max} bytes")] } else { Vec::new() }
}

fn is_dns_label(text: &str) -> bool {
    let is_inner = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    !text.is_empty() && text.bytes().all(is_inner) && !text.starts_with('-') && !text.ends_with('-')
}

fn is_qualified(text: &str) -> bool {
    let ends_well = |b: Option<u8>| b.is_some_and(|b| b.is_ascii_alphanumeric());
    text.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b))
        && ends_well(text.bytes().next())
        && ends_well(text.bytes().next_back())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn good_names_have_no_problems() {
        assert!(dns_label("a-1").is_empty());
        assert!(dns_subdomain("a.b-c.0").is_empty());
        assert!(dns1035_label("web").is_empty());
        assert!(qualified_name("app.kubernetes.io/name").is_empty());
        assert!(qualified_name("A_b.c").is_empty());
        assert!(label_value("").is_empty());
        assert!(config_key("a.b_C-1").is_empty());
        assert!(port_name("http-1").is_empty());
        assert!(port(65535).is_empty());
        assert!(env_name("MY_VAR.x").is_empty());
        assert!(ip("fd00::1").is_empty());
    }

    #[test]
    fn bad_names_say_the_rule_they_break() {
        for (problems, part) in [
            (dns_label("A"), "RFC 1123 label"),
            (dns_label(""), "RFC 1123 label"),
            (dns_label(&"a".repeat(64)), "no more than 63 bytes"),
            (dns_subdomain("a..b"), "RFC 1123 subdomain"),
            (dns1035_label("1a"), "DNS-1035"),
            (qualified_name("a/b/c"), "a qualified name must consist"),
            (qualified_name("/b"), "prefix part must be non-empty"),
            (qualified_name("A/b"), "prefix part a lowercase RFC 1123 subdomain"),
            (qualified_name("a/"), "name part must be non-empty"),
            (label_value("-x"), "a valid label must be"),
            (config_key(".."), "must not be '..'"),
            (port_name("80"), "at least one letter"),
            (port(0), "between 1 and 65535"),
            (env_name("a=b"), "printable ASCII"),
            (ip("10.0.0"), "valid IP address"),
            (path_segment("a/b"), "may not contain '/'"),
        ] {
            assert!(problems.iter().any(|problem| problem.contains(part)), "{problems:?} lacks {part}");
        }
    }
}
