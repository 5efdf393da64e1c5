//! The registry: every verb once, and a strategy per kind only where it differs.
//!
//! Reads pass stored bytes through. Writes decode once, decide on the typed object, and encode once.

mod causes;
mod fields;
mod kind;
mod meta;
mod record;
mod strategy;
mod verb;

use std::collections::HashMap;

use proto::codec::{ResourceInfo, schema};

pub use causes::Causes;
pub use fields::Filter;
pub use record::{Record, Shape};
pub use strategy::{Claim, FreelyNamed, Plain, Pool, Rules, Strategy, Typed};
pub(crate) use verb::writer::{Change, Mode};

/// One served resource.
pub struct Served {
    pub info: &'static ResourceInfo,
    pub rules: Box<dyn Rules>,
}

/// Everything that is served: found by name, or by arm of `forestay.api.v1.Object`.
pub struct Catalog {
    served: Vec<Served>,
    by_plural: HashMap<&'static str, Vec<usize>>,
    by_arm: HashMap<u32, usize>,
}

impl Catalog {
    /// Every stored kind with its strategy.
    pub fn new(kinds: kind::Settings) -> Self {
        let mut rules = kind::all(kinds);
        let mut catalog = Self { served: Vec::new(), by_plural: HashMap::new(), by_arm: HashMap::new() };
        for info in schema().resources() {
            let Some(rules) = rules.remove(&info.arm) else { continue };
            let index = catalog.served.len();
            catalog.by_plural.entry(&info.resource.plural).or_default().push(index);
            catalog.by_arm.insert(info.arm, index);
            catalog.served.push(Served { info, rules });
        }
        catalog
    }

    pub fn find(&self, group: &str, plural: &str) -> Option<&Served> {
        let named = self.by_plural.get(plural)?;
        named.iter().map(|index| &self.served[*index]).find(|served| served.info.resource.group == group)
    }

    pub fn of(&self, resource: &ResourceInfo) -> Option<&Served> {
        self.of_arm(resource.arm)
    }

    pub fn of_arm(&self, arm: u32) -> Option<&Served> {
        self.by_arm.get(&arm).map(|index| &self.served[*index])
    }

    pub fn all(&self) -> impl Iterator<Item = &Served> {
        self.served.iter()
    }
}

pub use kind::Settings;

/// Finds a stored resource by group and plural: what the hub needs of the registry.
pub fn resource_of() -> crate::storage::ResourceOf {
    let mut known: HashMap<&'static str, Vec<&'static ResourceInfo>> = HashMap::new();
    for info in schema().resources().iter().filter(|info| kind::is_stored(info)) {
        known.entry(&info.resource.plural).or_default().push(info);
    }
    std::sync::Arc::new(move |group, plural| {
        known.get(plural)?.iter().copied().find(|info| info.resource.group == group)
    })
}
