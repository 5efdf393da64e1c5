//! Query parameters, and the rules that bind those of lists and watches together.

use axum::extract;
use http::Uri;
use proto::k8s::meta::v1::StatusCause;

use crate::{
    api::{FieldValidation, ListOptions, Selection, WriteOptions},
    refusal::{Refusal, Result},
};

/// A request's parameters, in order; some repeat.
#[derive(Debug, Default)]
pub struct Query(Vec<(String, String)>);

impl Query {
    /// # Errors
    /// 400 where the query string is not form-encoded text.
    pub fn of(uri: &Uri) -> Result<Self> {
        let pairs = extract::Query::<Vec<(String, String)>>::try_from_uri(uri);
        pairs
            .map(|extract::Query(pairs)| Self(pairs))
            .map_err(|error| Refusal::bad_request(format!("read the query: {error}")))
    }

    /// The first value of a parameter; empty is as good as absent.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str()).filter(|value| !value.is_empty())
    }

    pub fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.0.iter().filter(move |(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    pub fn text(&self, name: &str) -> String {
        self.get(name).unwrap_or_default().to_owned()
    }

    /// A parameter that is given without a value is meant.
    ///
    /// # Errors
    /// 400 for another value than a boolean.
    pub fn flag(&self, name: &str) -> Result<Option<bool>> {
        match self.0.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str()) {
            None => Ok(None),
            Some("" | "1" | "t" | "T" | "true" | "True" | "TRUE") => Ok(Some(true)),
            Some("0" | "f" | "F" | "false" | "False" | "FALSE") => Ok(Some(false)),
            Some(other) => Err(unparsable(name, other, "true or false")),
        }
    }

    /// # Errors
    /// 400 for anything but a whole number that is not negative.
    pub fn number(&self, name: &str) -> Result<Option<i64>> {
        let parse = |value: &str| match value.parse() {
            Ok(number) if number >= 0_i64 => Ok(number),
            _ => Err(unparsable(name, value, "a whole number that is not negative")),
        };
        self.get(name).map(parse).transpose()
    }

    pub fn selection(&self) -> Selection {
        Selection { labels: self.text("labelSelector"), fields: self.text("fieldSelector") }
    }

    /// `dryRun`, `fieldManager` and `fieldValidation` of a write.
    ///
    /// # Errors
    /// 400 for a value none of them has.
    pub fn write_options(&self) -> Result<WriteOptions> {
        let field_validation = match self.get("fieldValidation") {
            None | Some("Warn") => FieldValidation::Warn,
            Some("Ignore") => FieldValidation::Ignore,
            Some("Strict") => FieldValidation::Strict,
            Some(other) => return Err(unparsable("fieldValidation", other, "Ignore, Warn or Strict")),
        };
        Ok(WriteOptions { dry_run: self.dry_run()?, field_manager: self.text("fieldManager"), field_validation })
    }

    /// # Errors
    /// 400 for a value other than All.
    pub fn dry_run(&self) -> Result<bool> {
        match self.all("dryRun").find(|value| *value != "All") {
            Some(other) => Err(unparsable("dryRun", other, "All")),
            None => Ok(self.all("dryRun").next().is_some()),
        }
    }
}

fn unparsable(name: &str, value: &str, wanted: &str) -> Refusal {
    Refusal::bad_request(format!("invalid value {value:?} of query parameter {name}: must be {wanted}"))
}

/// What a read of a collection asks for.
#[derive(Debug)]
pub enum Reading {
    List(ListOptions),
    Watch(Watch),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Watch {
    pub selection: Selection,
    /// 0: from the present state.
    pub from: u64,
    pub initial: Initial,
    pub bookmarks: bool,
    pub timeout_seconds: Option<u64>,
}

/// What becomes of the present state in a watch that begins with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Initial {
    /// Each object as ADDED.
    Sent,
    /// The same, and then a bookmark that says so.
    SentAndMarked,
    Skipped,
}

/// Reads the options of a list or watch.
///
/// # Errors
/// 400 for values that are none; 422 for options that contradict each other.
pub fn reading(query: &Query, is_watch: bool) -> Result<Reading> {
    let revision = match query.get("resourceVersion") {
        None => None,
        Some(text) => {
            Some(text.parse::<u64>().map_err(|_| unparsable("resourceVersion", text, "a revision of this cluster"))?)
        }
    };
    let send_initial = query.flag("sendInitialEvents")?;
    let is_watch = is_watch || query.flag("watch")? == Some(true);
    let limit = query.number("limit")?.unwrap_or_default();
    let exact = revision_match(query, revision, is_watch, send_initial)?;
    if !is_watch {
        let continue_ = query.text("continue");
        if !continue_.is_empty() && revision.is_some_and(|revision| revision != 0) {
            return Err(Refusal::bad_request("specifying resource version is not allowed when using continue"));
        }
        // A page of an older list stands at exactly that revision, unless the client is content with a newer one.
        let exact = exact.unwrap_or(limit > 0 && revision.is_some_and(|revision| revision > 0));
        let revision = revision.unwrap_or_default();
        return Ok(Reading::List(ListOptions { selection: query.selection(), limit, continue_, revision, exact }));
    }
    let (from, initial) = match (send_initial, revision.unwrap_or_default()) {
        // The store answers with its newest state, which is not older than any revision a client can have seen.
        (Some(true), _) => (0, Initial::SentAndMarked),
        (Some(false), 0) => (0, Initial::Skipped),
        (_, from) => (from, Initial::Sent),
    };
    Ok(Reading::Watch(Watch {
        selection: query.selection(),
        from,
        initial,
        bookmarks: query.flag("allowWatchBookmarks")?.unwrap_or_default(),
        timeout_seconds: query.number("timeoutSeconds")?.map(i64::unsigned_abs).filter(|seconds| *seconds > 0),
    }))
}

/// Whether exactly that revision is asked for; `None` where the client leaves it open.
fn revision_match(
    query: &Query,
    revision: Option<u64>,
    is_watch: bool,
    send_initial: Option<bool>,
) -> Result<Option<bool>> {
    let matching = query.get("resourceVersionMatch");
    if send_initial.is_some() {
        if !is_watch {
            return Err(forbidden("sendInitialEvents", "sendInitialEvents is forbidden for list"));
        }
        if matching != Some("NotOlderThan") {
            let why = "sendInitialEvents requires setting resourceVersionMatch to NotOlderThan";
            return Err(forbidden("resourceVersionMatch", why));
        }
        return Ok(None);
    }
    let Some(matching) = matching else { return Ok(None) };
    if is_watch {
        let why = "resourceVersionMatch is forbidden for watch unless sendInitialEvents is provided";
        return Err(forbidden("resourceVersionMatch", why));
    }
    if query.get("continue").is_some() {
        let why = "resourceVersionMatch is forbidden when continue is provided";
        return Err(forbidden("resourceVersionMatch", why));
    }
    match (matching, revision) {
        (_, None) => {
            let why = "resourceVersionMatch is forbidden unless resourceVersion is provided";
            Err(forbidden("resourceVersionMatch", why))
        }
        ("Exact", Some(0)) => {
            let why = "resourceVersionMatch \"Exact\" is forbidden for resourceVersion \"0\"";
            Err(forbidden("resourceVersionMatch", why))
        }
        ("Exact", _) => Ok(Some(true)),
        ("NotOlderThan", _) => Ok(Some(false)),
        (other, _) => {
            let message = format!("Unsupported value: {other:?}: supported values: \"Exact\", \"NotOlderThan\"");
            Err(invalid("resourceVersionMatch", "FieldValueNotSupported", message))
        }
    }
}

fn forbidden(field: &str, why: &str) -> Refusal {
    invalid(field, "FieldValueForbidden", format!("Forbidden: {why}"))
}

fn invalid(field: &str, reason: &str, message: String) -> Refusal {
    let cause = StatusCause { reason: reason.to_owned(), message, field: field.to_owned() };
    Refusal::invalid_kind("meta.k8s.io", "ListOptions", "", vec![cause])
}

#[cfg(test)]
mod tests {
    use expect_test::{Expect, expect};

    use super::*;

    fn query(text: &str) -> Query {
        Query::of(&format!("/api/v1/pods?{text}").parse().unwrap()).unwrap()
    }

    fn check(text: &str, expected: Expect) {
        let shown = match reading(&query(text), false) {
            Ok(Reading::List(list)) => {
                format!(
                    "list limit {} revision {} exact {} continue {:?}",
                    list.limit, list.revision, list.exact, list.continue_
                )
            }
            Ok(Reading::Watch(watch)) => {
                let Watch { from, initial, bookmarks, timeout_seconds, .. } = watch;
                format!("watch from {from} initial {initial:?} bookmarks {bookmarks} timeout {timeout_seconds:?}")
            }
            Err(refusal) => format!("{} {}", refusal.code(), refusal.message()),
        };
        expected.assert_eq(&shown);
    }

    #[test]
    fn a_list_says_which_revision_it_takes() {
        check("", expect![[r#"list limit 0 revision 0 exact false continue """#]]);
        check("limit=500", expect![[r#"list limit 500 revision 0 exact false continue """#]]);
        check("resourceVersion=7", expect![[r#"list limit 0 revision 7 exact false continue """#]]);
        check("resourceVersion=7&limit=2", expect![[r#"list limit 2 revision 7 exact true continue """#]]);
        check(
            "resourceVersion=7&limit=2&resourceVersionMatch=NotOlderThan",
            expect![[r#"list limit 2 revision 7 exact false continue """#]],
        );
        check("limit=2&continue=abc%3D", expect![[r#"list limit 2 revision 0 exact false continue "abc=""#]]);
    }

    #[test]
    fn options_that_contradict_each_other_are_refused() {
        check(
            "resourceVersionMatch=Exact",
            expect![[
                r#"422 ListOptions.meta.k8s.io "" is invalid: resourceVersionMatch: Forbidden: resourceVersionMatch is forbidden unless resourceVersion is provided"#
            ]],
        );
        check(
            "resourceVersionMatch=Exact&resourceVersion=0",
            expect![[
                r#"422 ListOptions.meta.k8s.io "" is invalid: resourceVersionMatch: Forbidden: resourceVersionMatch "Exact" is forbidden for resourceVersion "0""#
            ]],
        );
        check(
            "resourceVersionMatch=Newest&resourceVersion=3",
            expect![[
                r#"422 ListOptions.meta.k8s.io "" is invalid: resourceVersionMatch: Unsupported value: "Newest": supported values: "Exact", "NotOlderThan""#
            ]],
        );
        check(
            "continue=abc&resourceVersion=3",
            expect!["400 specifying resource version is not allowed when using continue"],
        );
        check(
            "sendInitialEvents=true&resourceVersionMatch=NotOlderThan",
            expect![[
                r#"422 ListOptions.meta.k8s.io "" is invalid: sendInitialEvents: Forbidden: sendInitialEvents is forbidden for list"#
            ]],
        );
        check(
            "watch=1&sendInitialEvents=true",
            expect![[
                r#"422 ListOptions.meta.k8s.io "" is invalid: resourceVersionMatch: Forbidden: sendInitialEvents requires setting resourceVersionMatch to NotOlderThan"#
            ]],
        );
    }

    #[test]
    fn a_watch_begins_with_the_present_or_after_a_revision() {
        check("watch=true", expect!["watch from 0 initial Sent bookmarks false timeout None"]);
        check(
            "watch=1&resourceVersion=9&allowWatchBookmarks=true&timeoutSeconds=300",
            expect!["watch from 9 initial Sent bookmarks true timeout Some(300)"],
        );
        check(
            "watch=true&sendInitialEvents=true&resourceVersionMatch=NotOlderThan&resourceVersion=9&allowWatchBookmarks=true",
            expect!["watch from 0 initial SentAndMarked bookmarks true timeout None"],
        );
        check(
            "watch=true&sendInitialEvents=false&resourceVersionMatch=NotOlderThan",
            expect!["watch from 0 initial Skipped bookmarks false timeout None"],
        );
    }

    #[test]
    fn values_that_are_none_are_named() {
        check(
            "limit=many",
            expect![[
                r#"400 invalid value "many" of query parameter limit: must be a whole number that is not negative"#
            ]],
        );
        check(
            "resourceVersion=x",
            expect![[
                r#"400 invalid value "x" of query parameter resourceVersion: must be a revision of this cluster"#
            ]],
        );
        check(
            "watch=perhaps",
            expect![[r#"400 invalid value "perhaps" of query parameter watch: must be true or false"#]],
        );
    }

    #[test]
    fn writes_say_how_they_are_meant() {
        let options = query("dryRun=All&fieldManager=kubectl&fieldValidation=Strict").write_options().unwrap();
        assert!(options.dry_run && options.field_manager == "kubectl");
        assert_eq!(options.field_validation, FieldValidation::Strict);
        assert_eq!(query("").write_options().unwrap().field_validation, FieldValidation::Warn);
        assert_eq!(query("dryRun=Some").write_options().unwrap_err().code(), 400);
        assert_eq!(query("fieldValidation=No").write_options().unwrap_err().code(), 400);
    }
}
