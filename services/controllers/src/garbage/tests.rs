use expect_test::expect;
use proptest::prelude::*;
use proto::k8s::meta::v1::ObjectMeta;

use super::{
    plan::{FOREGROUND, ORPHAN},
    *,
};
use crate::testing::{ago, check};

fn object(plural: &str, kind: &str, name: &str, owners: &[&str]) -> Found {
    let reference = |owner: &&str| OwnerReference {
        api_version: "v1".into(),
        kind: "ReplicationController".into(),
        name: (*owner).to_owned(),
        uid: format!("{owner}-uid"),
        controller: Some(true),
        block_owner_deletion: Some(true),
    };
    let metadata = ObjectMeta {
        name: name.into(),
        namespace: "default".into(),
        uid: format!("{name}-uid"),
        resource_version: "7".into(),
        owner_references: owners.iter().map(reference).collect(),
        ..Default::default()
    };
    let partial = Partial { api_version: "v1".into(), kind: kind.into(), metadata };
    Found { group: String::new(), plural: plural.into(), partial: Arc::new(partial) }
}

fn pod(owners: &[&str]) -> Found {
    object("pods", "Pod", "a", owners)
}

fn leaving(finalizer: &str) -> Found {
    let mut owner = object("replicationcontrollers", "ReplicationController", "web", &[]);
    let partial = Arc::make_mut(&mut owner.partial);
    partial.metadata.deletion_timestamp = Some(ago(1));
    partial.metadata.finalizers = vec![finalizer.into(), "example.com/other".into()];
    owner
}

fn owned(object: Found, owners: &[Owner]) -> Snapshot {
    let references = object.partial.metadata.owner_references.clone();
    Snapshot { owners: references.into_iter().zip(owners.iter().copied()).collect(), object, dependents: Vec::new() }
}

#[test]
fn what_belonged_to_a_deleted_owner_is_deleted() {
    check(
        plan(&owned(pod(&["web"]), &[Owner::Gone])),
        expect![[r#"
        delete pod/a
    "#]],
    );
}

#[test]
fn one_owner_that_stays_keeps_it() {
    check(
        plan(&owned(pod(&["gone", "web"]), &[Owner::Gone, Owner::Present])),
        expect![[r#"
        patch pod/a {"metadata":{"uid":"a-uid","resourceVersion":"7","ownerReferences":[{"apiVersion":"v1","kind":"ReplicationController","name":"web","uid":"web-uid","controller":true,"blockOwnerDeletion":true}]}}
    "#]],
    );
}

#[test]
fn an_owner_of_an_unknown_kind_is_left_in_peace() {
    check(plan(&owned(pod(&["web"]), &[Owner::Unknown])), expect![""]);
    check(plan(&owned(pod(&[]), &[])), expect![""]);
}

#[test]
fn an_owner_in_the_foreground_leaves_after_its_dependents() {
    let Action::Delete(deletion) = &plan(&owned(pod(&["web"]), &[Owner::Waiting]))[0] else { panic!("a deletion") };
    assert_eq!(deletion.options.propagation_policy.as_deref(), Some("Foreground"));
    let waiting = Snapshot { dependents: vec![pod(&["web"])], ..owned(leaving(FOREGROUND), &[]) };
    check(plan(&waiting), expect![""]);
    check(
        plan(&owned(leaving(FOREGROUND), &[])),
        expect![[r#"
        patch replicationcontroller/web {"metadata":{"uid":"web-uid","resourceVersion":"7","finalizers":["example.com/other"]}}
    "#]],
    );
}

#[test]
fn an_owner_that_orphans_lets_its_dependents_go_first() {
    let orphaning = Snapshot { dependents: vec![pod(&["web"])], ..owned(leaving(ORPHAN), &[]) };
    check(
        plan(&orphaning),
        expect![[r#"
        patch pod/a {"metadata":{"uid":"a-uid","resourceVersion":"7","ownerReferences":[]}}
    "#]],
    );
    check(
        plan(&owned(leaving(ORPHAN), &[])),
        expect![[r#"
        patch replicationcontroller/web {"metadata":{"uid":"web-uid","resourceVersion":"7","finalizers":["example.com/other"]}}
    "#]],
    );
}

proptest! {
    /// Each plan has at most one step for the object itself, and after it nothing is left to do.
    #[test]
    fn garbage_settles(owners in proptest::collection::vec(0u8..4, 0..4)) {
        let state = |kind: &u8| [Owner::Present, Owner::Waiting, Owner::Gone, Owner::Unknown][usize::from(*kind)];
        let states: Vec<Owner> = owners.iter().map(state).collect();
        let names: Vec<String> = (0..states.len()).map(|at| format!("o{at}")).collect();
        let first = owned(pod(&names.iter().map(String::as_str).collect::<Vec<_>>()), &states);
        let actions = plan(&first);
        prop_assert!(actions.len() <= 1);
        if let Some(Action::Patch(_)) = actions.first() {
            let mut after = first;
            after.owners.retain(|(_, owner)| *owner != Owner::Gone);
            prop_assert!(plan(&after).is_empty());
        }
    }
}
