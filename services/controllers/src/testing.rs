//! Builders and judges for the tests of the plans.

use std::{collections::BTreeMap, sync::Arc};

use client::{Action, Target};
use expect_test::Expect;
use jiff::Timestamp;
use proto::{
    Kind, Object, Resource,
    k8s::{
        core::v1::{Pod, PodCondition},
        meta::v1::{ObjectMeta, Time},
    },
};

/// The present of all tests.
pub fn now() -> Timestamp {
    Timestamp::from_second(1_000_000).unwrap()
}

pub fn ago(seconds: i64) -> Time {
    Time { seconds: now().as_second() - seconds, nanos: 0 }
}

/// An object with a name in "default" (where its kind has namespaces), with a uid and a revision.
pub fn named<K: Resource>(name: &str) -> K {
    let mut object = K::default();
    *object.meta_mut() = ObjectMeta {
        name: name.to_owned(),
        namespace: if K::NAMESPACED { "default".to_owned() } else { String::new() },
        uid: format!("{name}-uid"),
        resource_version: "7".to_owned(),
        generation: 1,
        creation_timestamp: Some(ago(3600)),
        ..Default::default()
    };
    object
}

pub fn labels(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

/// A pod with labels that is not scheduled yet.
pub fn pod(name: &str, pairs: &[(&str, &str)]) -> Pod {
    let mut pod: Pod = named(name);
    pod.meta_mut().labels = labels(pairs);
    pod.status.get_or_insert_default().phase = "Pending".into();
    pod
}

pub fn running(mut pod: Pod, node: &str, ip: &str) -> Pod {
    pod.spec.get_or_insert_default().node_name = node.into();
    let status = pod.status.get_or_insert_default();
    status.phase = "Running".into();
    status.pod_ip = ip.into();
    status.pod_ips = vec![proto::k8s::core::v1::PodIp { ip: ip.into() }];
    pod
}

pub fn ready(mut pod: Pod, since: i64) -> Pod {
    let condition = PodCondition {
        r#type: "Ready".into(),
        status: "True".into(),
        last_transition_time: Some(ago(since)),
        ..Default::default()
    };
    pod.status.get_or_insert_default().conditions = vec![condition];
    pod
}

/// Compares a plan, one action a line, with what is expected.
pub fn check(actions: impl IntoIterator<Item = Action>, expected: Expect) {
    let lines: Vec<String> = actions.into_iter().map(|action| format!("{action}\n")).collect();
    expected.assert_eq(&lines.concat());
}

/// Objects that plans are done on, as the API would, without its refusals.
#[derive(Default, Debug)]
pub struct World {
    objects: BTreeMap<(u32, String, String), Object>,
    made: u64,
}

impl World {
    pub fn with<K: Resource>(mut self, objects: impl IntoIterator<Item = K>) -> Self {
        for object in objects {
            self.put(&object);
        }
        self
    }

    pub fn put<K: Resource>(&mut self, object: &K) {
        let key = (K::ARM, object.meta().namespace.clone(), object.meta().name.clone());
        self.objects.insert(key, Object::of(object));
    }

    pub fn list<K: Resource>(&self) -> Vec<Arc<K>> {
        let decode = |object: &Object| Arc::new(object.decode_as::<K>().unwrap());
        self.objects.iter().filter(|((arm, ..), _)| *arm == K::ARM).map(|(_, object)| decode(object)).collect()
    }

    pub fn get<K: Resource>(&self, name: &str) -> Option<Arc<K>> {
        self.list::<K>().into_iter().find(|object| object.meta().name == name)
    }

    /// Does one action on objects of kind `K`.
    fn act<K: Resource>(&mut self, action: &Action) {
        let is_mine = |target: &Target| target.resource == K::PLURAL && target.group == K::GROUP;
        self.made += 1;
        match action {
            Action::Create(write) if is_mine(&write.target) => {
                let mut object: K = write.object.decode_as().unwrap();
                let made = self.made;
                let meta = object.meta_mut();
                if meta.name.is_empty() {
                    meta.name = format!("{}{made}", meta.generate_name);
                }
                meta.uid = format!("made-{made}");
                meta.creation_timestamp = Some(Time { seconds: now().as_second(), nanos: 0 });
                meta.resource_version = made.to_string();
                self.put(&object);
            }
            Action::Update(write) | Action::UpdateStatus(write) if is_mine(&write.target) => {
                let mut object: K = write.object.decode_as().unwrap();
                object.meta_mut().resource_version = self.made.to_string();
                self.put(&object);
            }
            Action::Delete(deletion) if is_mine(&deletion.target) => {
                let name = (K::ARM, deletion.target.namespace.clone(), deletion.target.name.clone());
                self.objects.remove(&name);
            }
            _ => {}
        }
    }
}

/// Does plans until one has nothing to write.
///
/// # Panics
/// Where that does not happen within `rounds`.
pub fn settles(
    world: &mut World,
    rounds: usize,
    plan: impl Fn(&World) -> Vec<Action>,
    act: &[fn(&mut World, &Action)],
) {
    for _ in 0..rounds {
        let actions = plan(world);
        if !actions.iter().any(Action::is_write) {
            return;
        }
        for action in &actions {
            act.iter().for_each(|act| act(world, action));
        }
    }
    let left: Vec<String> = plan(world).iter().map(Action::to_string).collect();
    assert!(left.is_empty(), "not settled after {rounds} rounds: {left:#?}");
}

/// Does actions on one kind, for [`settles`].
pub fn acting<K: Resource>(world: &mut World, action: &Action) {
    world.act::<K>(action);
}
