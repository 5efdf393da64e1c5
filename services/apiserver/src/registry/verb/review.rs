//! Reviews: questions about what a user may do, asked by creating an object that is answered and not stored.

use bytes::Bytes;
use prost::Message;
use proto::{
    codec::ResourceInfo,
    k8s::{
        authentication::v1::{SelfSubjectReview, SelfSubjectReviewStatus, UserInfo},
        authorization::v1::{
            LocalSubjectAccessReview, NonResourceAttributes, NonResourceRule, ResourceAttributes, ResourceRule,
            SelfSubjectAccessReview, SelfSubjectRulesReview, SubjectAccessReview, SubjectAccessReviewStatus,
            SubjectRulesReviewStatus,
        },
    },
};

use crate::{
    api::{Api, RequestContext, Stored, Target, Written},
    gate::authz::{self, Attributes, Verb},
    refusal::{Refusal, Result},
};

/// Whether objects of this resource are answered and not stored.
pub(super) fn is_review(info: &ResourceInfo) -> bool {
    let named = &info.resource;
    matches!(
        (named.group.as_str(), named.plural.as_str()),
        (
            "authorization.k8s.io",
            "selfsubjectaccessreviews"
                | "selfsubjectrulesreviews"
                | "subjectaccessreviews"
                | "localsubjectaccessreviews"
        ) | ("authentication.k8s.io", "selfsubjectreviews")
    )
}

pub(super) fn resources() -> impl Iterator<Item = &'static ResourceInfo> {
    proto::codec::schema().resources().iter().filter(|info| is_review(info))
}

impl Api {
    pub(super) async fn review(&self, context: &RequestContext, target: Target<'_>, raw: &[u8]) -> Result<Written> {
        let is_about_self = target.resource.resource.plural.starts_with("self");
        if !is_about_self || authz::is_anonymous(context) {
            self.authorize(context, Verb::Create, &target)?;
        }
        let bytes = match target.resource.resource.plural.as_str() {
            "selfsubjectaccessreviews" => {
                let mut review: SelfSubjectAccessReview = decoded(raw)?;
                let spec = review.spec.clone().unwrap_or_default();
                review.status =
                    Some(verdict(context, spec.resource_attributes.as_ref(), spec.non_resource_attributes.as_ref()));
                review.encode_to_vec()
            }
            "subjectaccessreviews" => {
                let mut review: SubjectAccessReview = decoded(raw)?;
                let spec = review.spec.clone().unwrap_or_default();
                let asked = RequestContext { user: spec.user, groups: spec.groups };
                review.status =
                    Some(verdict(&asked, spec.resource_attributes.as_ref(), spec.non_resource_attributes.as_ref()));
                review.encode_to_vec()
            }
            "localsubjectaccessreviews" => {
                let mut review: LocalSubjectAccessReview = decoded(raw)?;
                let spec = review.spec.clone().unwrap_or_default();
                let asked = RequestContext { user: spec.user, groups: spec.groups };
                review.status = Some(verdict(&asked, spec.resource_attributes.as_ref(), None));
                review.encode_to_vec()
            }
            "selfsubjectrulesreviews" => {
                let mut review: SelfSubjectRulesReview = decoded(raw)?;
                review.status = Some(rules(context));
                review.encode_to_vec()
            }
            _ => {
                let mut review: SelfSubjectReview = decoded(raw)?;
                let user =
                    UserInfo { username: context.user.clone(), groups: context.groups.clone(), ..UserInfo::default() };
                review.status = Some(SelfSubjectReviewStatus { user_info: Some(user) });
                review.encode_to_vec()
            }
        };
        let object = Stored::new(target.resource, 0, Bytes::from(bytes));
        Ok(Written { object, created: true, warnings: Vec::new() })
    }
}

fn decoded<M: Message + Default>(raw: &[u8]) -> Result<M> {
    M::decode(raw).map_err(|error| Refusal::bad_request(format!("the review cannot be read: {error}")))
}

fn verdict(
    asked: &RequestContext,
    resource: Option<&ResourceAttributes>,
    path: Option<&NonResourceAttributes>,
) -> SubjectAccessReviewStatus {
    let answer = match (resource, path) {
        (Some(wish), _) => authz::decide(asked, &Attributes::named(wish)).map(drop),
        (None, Some(wish)) => authz::decide_path(asked, &wish.verb, &wish.path),
        (None, None) => Err(Refusal::bad_request("resourceAttributes or nonResourceAttributes is required")),
    };
    SubjectAccessReviewStatus {
        allowed: answer.is_ok(),
        reason: answer.err().map(|refusal| refusal.message().to_owned()).unwrap_or_default(),
        ..SubjectAccessReviewStatus::default()
    }
}

fn rules(context: &RequestContext) -> SubjectRulesReviewStatus {
    let every = || vec!["*".to_owned()];
    if !authz::is_master(context) {
        return SubjectRulesReviewStatus { incomplete: true, ..SubjectRulesReviewStatus::default() };
    }
    SubjectRulesReviewStatus {
        resource_rules: vec![ResourceRule {
            verbs: every(),
            api_groups: every(),
            resources: every(),
            resource_names: Vec::new(),
        }],
        non_resource_rules: vec![NonResourceRule { verbs: every(), non_resource_urls: every() }],
        incomplete: false,
        evaluation_error: String::new(),
    }
}
