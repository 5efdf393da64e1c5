//! Why a request is turned down, in etcd's words: clients match on the texts and on the codes.

use tonic::{Code, Status};

/// One of etcd's errors.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    #[error("etcdserver: key is not provided")]
    EmptyKey,
    #[error("etcdserver: key not found")]
    KeyNotFound,
    #[error("etcdserver: value is provided")]
    ValueProvided,
    #[error("etcdserver: lease is provided")]
    LeaseProvided,
    #[error("etcdserver: too many operations in txn request")]
    TooManyOps,
    #[error("etcdserver: duplicate key given in txn request")]
    DuplicateKey,
    #[error("etcdserver: invalid sort option")]
    InvalidSortOption,
    #[error("etcdserver: mvcc: required revision has been compacted")]
    Compacted,
    #[error("etcdserver: mvcc: required revision is a future revision")]
    FutureRevision,
    #[error("etcdserver: mvcc: database space exceeded")]
    NoSpace,
    #[error("etcdserver: requested lease not found")]
    LeaseNotFound,
    #[error("etcdserver: lease already exists")]
    LeaseExists,
    #[error("etcdserver: too large lease TTL")]
    LeaseTtlTooLarge,
    #[error("etcdserver: request is too large")]
    RequestTooLarge,
    #[error("etcdserver: too many requests")]
    TooManyRequests,
    #[error("etcdserver: no leader")]
    NoLeader,
    #[error("etcdserver: not leader")]
    NotLeader,
    #[error("etcdserver: leader changed")]
    LeaderChanged,
    #[error("etcdserver: request timed out")]
    Timeout,
    #[error("etcdserver: request timed out, possibly due to previous leader failure")]
    TimeoutLeaderFailed,
    #[error("etcdserver: request timed out, possibly due to connection lost")]
    TimeoutConnectionLost,
    #[error("etcdserver: server stopped")]
    Stopped,
    #[error("etcdserver: member not found")]
    MemberNotFound,
    #[error("etcdserver: member ID already exist")]
    MemberExists,
    #[error("etcdserver: Peer URLs already exists")]
    PeerUrlExists,
    #[error("etcdserver: re-configuration failed due to not enough started members")]
    NotEnoughStarted,
    #[error("etcdserver: given member URLs are invalid")]
    BadUrls,
    #[error("etcdserver: can only promote a learner member")]
    MemberNotLearner,
    #[error("etcdserver: can only promote a learner member which is in sync with leader")]
    LearnerNotReady,
    #[error("the member has been permanently removed from the cluster")]
    MemberRemoved,
    #[error("etcdserver: unhealthy cluster")]
    Unhealthy,
    #[error("etcdserver: bad leader transferee")]
    BadTransferee,
    #[error("etcdserver: request timed out, leader transfer took too long")]
    TransferTimeout,
}

/// All of them, to be found by their text.
const ALL: &[Refusal] = &[
    Refusal::EmptyKey,
    Refusal::KeyNotFound,
    Refusal::ValueProvided,
    Refusal::LeaseProvided,
    Refusal::TooManyOps,
    Refusal::DuplicateKey,
    Refusal::InvalidSortOption,
    Refusal::Compacted,
    Refusal::FutureRevision,
    Refusal::NoSpace,
    Refusal::LeaseNotFound,
    Refusal::LeaseExists,
    Refusal::LeaseTtlTooLarge,
    Refusal::RequestTooLarge,
    Refusal::TooManyRequests,
    Refusal::NoLeader,
    Refusal::NotLeader,
    Refusal::LeaderChanged,
    Refusal::Timeout,
    Refusal::TimeoutLeaderFailed,
    Refusal::TimeoutConnectionLost,
    Refusal::Stopped,
    Refusal::MemberNotFound,
    Refusal::MemberExists,
    Refusal::PeerUrlExists,
    Refusal::NotEnoughStarted,
    Refusal::BadUrls,
    Refusal::MemberNotLearner,
    Refusal::LearnerNotReady,
    Refusal::MemberRemoved,
    Refusal::Unhealthy,
    Refusal::BadTransferee,
    Refusal::TransferTimeout,
];

impl Refusal {
    pub fn code(self) -> Code {
        match self {
            Refusal::EmptyKey
            | Refusal::KeyNotFound
            | Refusal::ValueProvided
            | Refusal::LeaseProvided
            | Refusal::TooManyOps
            | Refusal::DuplicateKey
            | Refusal::InvalidSortOption
            | Refusal::BadUrls
            | Refusal::RequestTooLarge => Code::InvalidArgument,
            Refusal::Compacted | Refusal::FutureRevision | Refusal::LeaseTtlTooLarge => Code::OutOfRange,
            Refusal::NoSpace | Refusal::TooManyRequests => Code::ResourceExhausted,
            Refusal::LeaseNotFound | Refusal::MemberNotFound => Code::NotFound,
            Refusal::LeaseExists | Refusal::NotLeader => Code::FailedPrecondition,
            Refusal::BadTransferee
            | Refusal::MemberExists
            | Refusal::PeerUrlExists
            | Refusal::NotEnoughStarted
            | Refusal::MemberRemoved
            | Refusal::MemberNotLearner
            | Refusal::LearnerNotReady => Code::FailedPrecondition,
            Refusal::NoLeader
            | Refusal::LeaderChanged
            | Refusal::Timeout
            | Refusal::TimeoutLeaderFailed
            | Refusal::TimeoutConnectionLost
            | Refusal::TransferTimeout
            | Refusal::Unhealthy
            | Refusal::Stopped => Code::Unavailable,
        }
    }

    /// The refusal another member sent in etcd's words.
    pub fn from_text(text: &str) -> Option<Refusal> {
        ALL.iter().copied().find(|refusal| refusal.to_string() == text)
    }
}

impl From<Refusal> for Status {
    fn from(refusal: Refusal) -> Status {
        Status::new(refusal.code(), refusal.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_text_names_one_refusal() {
        for refusal in ALL {
            assert_eq!(Refusal::from_text(&refusal.to_string()), Some(*refusal));
        }
        assert_eq!(Refusal::from_text("etcdserver: something else"), None);
    }
}
