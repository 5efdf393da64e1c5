//! Content negotiation: which form a client reads, and which one it sent.

use crate::refusal::{Refusal, Result};

pub const JSON: &str = "application/json";
pub const YAML: &str = "application/yaml";
pub const PROTOBUF: &str = "application/vnd.kubernetes.protobuf";

/// How bytes are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Encoding {
    Json,
    Yaml,
    Protobuf,
}

/// How much of an object is shown, and in which shape.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum View {
    Full,
    /// `meta.k8s.io/v1` Table
    Table,
    /// `meta.k8s.io/v1` PartialObjectMetadata
    Metadata,
}

/// What a client accepts best of what we have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Accepted {
    pub encoding: Encoding,
    pub view: View,
}

/// The shape of the discovery document that a client reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Discovery {
    /// One document with every group; the version of `apidiscovery.k8s.io`.
    Aggregated(&'static str),
    Legacy,
}

impl Encoding {
    pub fn media_type(self) -> &'static str {
        match self {
            Self::Json => JSON,
            Self::Yaml => YAML,
            Self::Protobuf => PROTOBUF,
        }
    }

    /// The form of a request's body; JSON where the client does not say.
    ///
    /// # Errors
    /// 415 for any other form.
    pub fn of_body(content_type: Option<&str>) -> Result<Self> {
        let media_type = content_type.map_or(JSON, |text| text.split(';').next().unwrap_or_default().trim());
        named(media_type).filter(|_| !media_type.contains('*')).ok_or_else(|| {
            Refusal::unsupported_media_type(format!(
                "the body of the request was in an unknown format {media_type:?} - accepted media types include: {JSON}, \
                 {YAML}, {PROTOBUF}"
            ))
        })
    }
}

fn named(media_type: &str) -> Option<Encoding> {
    match media_type.to_ascii_lowercase().as_str() {
        "" | JSON | "*/*" | "application/*" => Some(Encoding::Json),
        YAML | "application/x-yaml" | "text/yaml" => Some(Encoding::Yaml),
        PROTOBUF => Some(Encoding::Protobuf),
        _ => None,
    }
}

/// One alternative of an `Accept` header.
struct Alternative<'a> {
    media_type: &'a str,
    parameters: Vec<(&'a str, &'a str)>,
    quality: f32,
}

impl Alternative<'_> {
    fn parameter(&self, name: &str) -> Option<&str> {
        self.parameters.iter().find(|(key, _)| *key == name).map(|(_, value)| *value)
    }
}

/// Alternatives, best first; equal ones in the client's order.
fn alternatives(accept: &str) -> Vec<Alternative<'_>> {
    let mut alternatives: Vec<Alternative<'_>> =
        accept.split(',').map(alternative).filter(|a| a.quality > 0.0).collect();
    alternatives.sort_by(|a, b| b.quality.total_cmp(&a.quality));
    alternatives
}

fn alternative(text: &str) -> Alternative<'_> {
    let mut parts = text.split(';').map(str::trim);
    let media_type = parts.next().unwrap_or_default();
    let parameters: Vec<(&str, &str)> = parts.filter_map(|part| part.split_once('=')).collect();
    let quality =
        parameters.iter().find(|(key, _)| *key == "q").and_then(|(_, value)| value.parse().ok()).unwrap_or(1.0);
    Alternative { media_type, parameters, quality }
}

/// The best form of an object or list that both sides know.
///
/// # Errors
/// 406 where there is none.
pub fn negotiate(accept: Option<&str>) -> Result<Accepted> {
    let accept = accept.unwrap_or("*/*");
    let offer = |alternative: &Alternative<'_>| {
        let encoding = named(alternative.media_type)?;
        let view = match alternative.parameter("as") {
            None => View::Full,
            Some(_)
                if alternative.parameter("g") != Some("meta.k8s.io") || alternative.parameter("v") != Some("v1") =>
            {
                return None;
            }
            // Cells may hold anything, which protobuf cannot say.
            Some("Table") if encoding != Encoding::Protobuf => View::Table,
            Some("PartialObjectMetadata" | "PartialObjectMetadataList") => View::Metadata,
            Some(_) => return None,
        };
        Some(Accepted { encoding, view })
    };
    alternatives(accept).iter().find_map(offer).ok_or_else(|| {
        Refusal::not_acceptable(format!("only the following media types are accepted: {JSON}, {YAML}, {PROTOBUF}"))
    })
}

/// The best form of discovery; legacy lists where nothing newer is asked for.
pub fn discovery(accept: Option<&str>) -> Discovery {
    let offer = |alternative: &Alternative<'_>| {
        if named(alternative.media_type)? != Encoding::Json {
            return None;
        }
        match (alternative.parameter("g"), alternative.parameter("as"), alternative.parameter("v")) {
            (None, None, None) => Some(Discovery::Legacy),
            (Some("apidiscovery.k8s.io"), Some("APIGroupDiscoveryList"), Some("v2")) => {
                Some(Discovery::Aggregated("v2"))
            }
            (Some("apidiscovery.k8s.io"), Some("APIGroupDiscoveryList"), Some("v2beta1")) => {
                Some(Discovery::Aggregated("v2beta1"))
            }
            _ => None,
        }
    };
    alternatives(accept.unwrap_or("*/*")).iter().find_map(offer).unwrap_or(Discovery::Legacy)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn accepted(encoding: Encoding, view: View) -> Accepted {
        Accepted { encoding, view }
    }

    #[test]
    fn kubectl_gets_tables_and_typed_clients_get_protobuf() {
        let kubectl = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json;as=Table;v=v1beta1;g=meta.k8s.io,\
                       application/json";
        assert_eq!(negotiate(Some(kubectl)).unwrap(), accepted(Encoding::Json, View::Table));
        let client_go = "application/vnd.kubernetes.protobuf,application/json";
        assert_eq!(negotiate(Some(client_go)).unwrap(), accepted(Encoding::Protobuf, View::Full));
        let metadata = "application/vnd.kubernetes.protobuf;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1";
        assert_eq!(negotiate(Some(metadata)).unwrap(), accepted(Encoding::Protobuf, View::Metadata));
    }

    #[test]
    fn what_is_unknown_is_passed_over() {
        let old_table = "application/json;as=Table;v=v1beta1;g=meta.k8s.io, application/yaml";
        assert_eq!(negotiate(Some(old_table)).unwrap(), accepted(Encoding::Yaml, View::Full));
        let browser = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8";
        assert_eq!(negotiate(Some(browser)).unwrap(), accepted(Encoding::Json, View::Full));
        let binary_first = "application/cbor,application/json;stream=watch";
        assert_eq!(negotiate(Some(binary_first)).unwrap(), accepted(Encoding::Json, View::Full));
        assert_eq!(negotiate(None).unwrap(), accepted(Encoding::Json, View::Full));
    }

    #[test]
    fn quality_orders_alternatives() {
        let accept = "application/json;q=0.5,application/vnd.kubernetes.protobuf";
        assert_eq!(negotiate(Some(accept)).unwrap().encoding, Encoding::Protobuf);
        assert_eq!(negotiate(Some("application/json;q=0")).unwrap_err().code(), 406);
    }

    #[test]
    fn a_form_nobody_has_is_not_acceptable() {
        let refusal = negotiate(Some("image/png")).unwrap_err();
        assert_eq!((refusal.code(), refusal.reason()), (406, "NotAcceptable"));
        assert_eq!(
            negotiate(Some("application/vnd.kubernetes.protobuf;as=Table;v=v1;g=meta.k8s.io")).unwrap_err().code(),
            406
        );
    }

    #[test]
    fn a_body_is_json_unless_it_says_otherwise() {
        assert_eq!(Encoding::of_body(None).unwrap(), Encoding::Json);
        assert_eq!(Encoding::of_body(Some("application/json; charset=utf-8")).unwrap(), Encoding::Json);
        assert_eq!(Encoding::of_body(Some(PROTOBUF)).unwrap(), Encoding::Protobuf);
        assert_eq!(Encoding::of_body(Some("application/xml")).unwrap_err().code(), 415);
        assert_eq!(Encoding::of_body(Some("*/*")).unwrap_err().code(), 415);
    }

    #[test]
    fn newer_clients_get_one_discovery_document() {
        let v2 = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList,\
                  application/json;g=apidiscovery.k8s.io;v=v2beta1;as=APIGroupDiscoveryList,application/json";
        assert_eq!(discovery(Some(v2)), Discovery::Aggregated("v2"));
        let v2beta1 = "application/json;g=apidiscovery.k8s.io;v=v2beta1;as=APIGroupDiscoveryList,application/json";
        assert_eq!(discovery(Some(v2beta1)), Discovery::Aggregated("v2beta1"));
        assert_eq!(discovery(Some("application/json")), Discovery::Legacy);
        assert_eq!(discovery(None), Discovery::Legacy);
    }
}
