//! Versions of keys: put and delete at one revision, and the history they leave.

use std::{io, ops::ControlFlow};

use bytes::Bytes;
use prost::Message;
use proto::{
    forestay::raft::v1::{Change, Version},
    mvccpb::{Event, KeyValue, event::EventType},
};

use super::layout::{self, Latest};
use crate::engine::{Overlay, View, after_prefix};

/// Changes of one revision, in their order.
pub struct Writer<'o, 'b> {
    pub rows: &'o mut Overlay<'b>,
    pub revision: i64,
    pub events: Vec<Event>,
}

impl Writer<'_, '_> {
    /// Writes a new version; gives back the one before.
    pub fn put(&mut self, key: Bytes, value: Bytes, lease: i64) -> io::Result<Option<KeyValue>> {
        let previous = self.newest(&key)?;
        let kv = KeyValue {
            create_revision: previous.as_ref().map_or(self.revision, |previous| previous.create_revision),
            mod_revision: self.revision,
            version: previous.as_ref().map_or(0, |previous| previous.version) + 1,
            key: key.clone(),
            value,
            lease,
        };
        self.move_lease(&key, previous.as_ref().map_or(0, |previous| previous.lease), lease);
        let sub = self.record(Change { kv: Some(kv.clone()), deleted: false });
        let value_in_change = kv.value.len() > layout::INLINE_BYTES_MAX;
        let shown = if value_in_change { KeyValue { value: Bytes::new(), ..kv.clone() } } else { kv.clone() };
        let latest = Latest { kv: Some(shown), sub, value_in_change };
        let prev_kv = self.before(&key, previous.as_ref())?;
        self.rows.put(layout::latest_key(&key), latest.encode_to_vec().into());
        self.events.push(Event { r#type: EventType::Put as i32, kv: Some(kv), prev_kv });
        Ok(previous)
    }

    /// Ends a live key; gives back its last version.
    pub fn delete(&mut self, key: &Bytes) -> io::Result<Option<KeyValue>> {
        let Some(previous) = self.newest(key)? else { return Ok(None) };
        self.move_lease(key, previous.lease, 0);
        let kv = KeyValue { key: key.clone(), mod_revision: self.revision, ..KeyValue::default() };
        self.record(Change { kv: Some(kv.clone()), deleted: true });
        let prev_kv = self.before(key, Some(&previous))?;
        self.rows.delete(layout::latest_key(key));
        self.events.push(Event { r#type: EventType::Delete as i32, kv: Some(kv), prev_kv });
        Ok(Some(previous))
    }

    /// What an event calls the version before: that of the revision before, also where this transaction has written the
    /// key since; none where the event creates the key. As in etcd.
    fn before(&self, key: &[u8], previous: Option<&KeyValue>) -> io::Result<Option<KeyValue>> {
        match previous {
            Some(own) if own.mod_revision == self.revision => version_at(&*self.rows, key, self.revision - 1),
            previous => Ok(previous.cloned()),
        }
    }

    fn newest(&self, key: &[u8]) -> io::Result<Option<KeyValue>> {
        layout::read_latest(&*self.rows, key)?.map(|latest| layout::whole(&*self.rows, latest)).transpose()
    }

    fn record(&mut self, change: Change) -> u32 {
        let sub = self.events.len() as u32;
        let version = Version { sub, deleted: change.deleted };
        let key = change.kv.as_ref().map(|kv| kv.key.clone()).unwrap_or_default();
        self.rows.put(layout::version_key(&key, self.revision), version.encode_to_vec().into());
        self.rows.put(layout::change_key(self.revision, sub), change.encode_to_vec().into());
        sub
    }

    fn move_lease(&mut self, key: &[u8], from: i64, to: i64) {
        if from == to {
            return;
        }
        if from != 0 {
            self.rows.delete(layout::attachment_key(from, key));
        }
        if to != 0 {
            self.rows.put(layout::attachment_key(to, key), Bytes::new());
        }
    }
}

/// The version of `key` that was newest at `revision`; `None` where it was absent.
pub fn version_at(view: &dyn View, key: &[u8], revision: i64) -> io::Result<Option<KeyValue>> {
    let from = layout::version_key(key, revision);
    let to = after_prefix(&layout::versions_prefix(key));
    let mut found = None;
    view.scan(&from, &to, &mut |row, version| {
        found = layout::split_version_key(row)
            .map(|(_, revision)| layout::decode_version(version).map(|version| (revision, version)));
        Ok(ControlFlow::Break(()))
    })?;
    match found.transpose()? {
        Some((revision, version)) if !version.deleted => {
            Ok(layout::read_change(view, revision, version.sub)?.and_then(|change| change.kv))
        }
        _ => Ok(None),
    }
}

/// Events of revisions `from..=to`, whole revisions only, as many as fit into `bytes_max` but at least one revision.
///
/// Gives the events and the revision the next call has to begin with.
pub fn changes_between(
    view: &dyn View,
    from: i64,
    to: i64,
    bytes_max: usize,
    with_previous: bool,
    wanted: &dyn Fn(&[u8]) -> bool,
) -> io::Result<(Vec<Event>, i64)> {
    let mut changes: Vec<Change> = Vec::new();
    let mut bytes = 0;
    let mut next = to + 1;
    let mut looked_at = 0usize;
    let mut current = from;
    view.scan(&layout::change_key(from, 0), &layout::change_key(to + 1, 0), &mut |row, change| {
        let (revision, _) = layout::split_change_key(row)
            .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "a row of the history has no revision"))?;
        // Stop between revisions only, and after a bounded amount of work.
        if revision != current && (bytes > bytes_max || looked_at > 10_000) {
            next = revision;
            return Ok(ControlFlow::Break(()));
        }
        current = revision;
        looked_at += 1;
        let decoded: Change = layout::decode("a change", change)?;
        if decoded.kv.as_ref().is_some_and(|kv| wanted(&kv.key)) {
            bytes += change.len();
            changes.push(decoded);
        }
        Ok(ControlFlow::Continue(()))
    })?;
    let mut events = Vec::with_capacity(changes.len());
    for Change { kv, deleted } in changes {
        let kv = kv.unwrap_or_default();
        let creates = !deleted && kv.create_revision == kv.mod_revision;
        let prev_kv = if with_previous && !creates { version_at(view, &kv.key, kv.mod_revision - 1)? } else { None };
        let r#type = if deleted { EventType::Delete } else { EventType::Put };
        events.push(Event { r#type: r#type as i32, kv: Some(kv), prev_kv });
    }
    Ok((events, next))
}
