//! Requests counted for `/metrics`, in the names Kubernetes' dashboards look for.

use std::collections::BTreeMap;

use axum::extract::Request;
use http::{Method, StatusCode};
use parking_lot::Mutex;

use super::path::{self, Path};

/// What is counted apart from what: bounded by what is served, never by what clients ask for.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Counted {
    verb: &'static str,
    group: &'static str,
    resource: &'static str,
    subresource: String,
}

/// Counts since the start.
#[derive(Default)]
pub struct Metrics {
    requests: Mutex<BTreeMap<(Counted, u16), u64>>,
}

impl Counted {
    pub fn of(request: &Request) -> Self {
        let Some(Path::Object(object)) = path::parse(request.uri().path()) else {
            return Self {
                verb: verb(request.method(), true, false),
                group: "",
                resource: "",
                subresource: String::new(),
            };
        };
        let query = request.uri().query().unwrap_or_default();
        let is_watch =
            object.is_watch || query.split('&').any(|pair| matches!(pair, "watch=true" | "watch=1" | "watch"));
        Self {
            verb: verb(request.method(), !object.name.is_empty(), is_watch),
            group: &object.resource.resource.group,
            resource: &object.resource.resource.plural,
            subresource: object.subresource,
        }
    }
}

fn verb(method: &Method, named: bool, is_watch: bool) -> &'static str {
    match *method {
        Method::GET | Method::HEAD if is_watch => "WATCH",
        Method::GET | Method::HEAD if named => "GET",
        Method::GET | Method::HEAD => "LIST",
        Method::POST => "POST",
        Method::PUT => "PUT",
        Method::PATCH => "PATCH",
        Method::DELETE if named => "DELETE",
        Method::DELETE => "DELETECOLLECTION",
        _ => "OTHER",
    }
}

impl Metrics {
    pub fn count(&self, counted: Counted, code: StatusCode) {
        *self.requests.lock().entry((counted, code.as_u16())).or_default() += 1;
    }

    /// The counts in Prometheus' text format.
    pub fn rendered(&self) -> String {
        let mut out =
            String::from("# HELP apiserver_request_total Requests answered.\n# TYPE apiserver_request_total counter\n");
        for ((counted, code), count) in &*self.requests.lock() {
            let Counted { verb, group, resource, subresource } = counted;
            out.push_str(&format!(
                "apiserver_request_total{{verb=\"{verb}\",group=\"{group}\",resource=\"{resource}\",\
                 subresource=\"{subresource}\",code=\"{code}\"}} {count}\n"
            ));
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use axum::body::Body;
    use expect_test::expect;

    use super::*;

    #[test]
    fn requests_are_counted_by_what_they_do() {
        let metrics = Metrics::default();
        let request = |method: &str, uri: &str| Request::builder().method(method).uri(uri).body(Body::empty()).unwrap();
        for (method, uri, code) in [
            ("GET", "/api/v1/namespaces/a/pods?limit=5", 200),
            ("GET", "/api/v1/namespaces/b/pods", 200),
            ("GET", "/api/v1/pods?watch=true", 200),
            ("GET", "/api/v1/namespaces/a/pods/x/log", 404),
            ("GET", "/some/thing", 404),
        ] {
            metrics.count(Counted::of(&request(method, uri)), StatusCode::from_u16(code).unwrap());
        }
        expect![[r#"
            # HELP apiserver_request_total Requests answered.
            # TYPE apiserver_request_total counter
            apiserver_request_total{verb="GET",group="",resource="",subresource="",code="404"} 1
            apiserver_request_total{verb="GET",group="",resource="pods",subresource="log",code="404"} 1
            apiserver_request_total{verb="LIST",group="",resource="pods",subresource="",code="200"} 2
            apiserver_request_total{verb="WATCH",group="",resource="pods",subresource="",code="200"} 1
        "#]]
        .assert_eq(&metrics.rendered());
    }
}
