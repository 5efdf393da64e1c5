//! Rows about to be written, laid over those that are: a batch in the making reads its own writes.

use std::{
    collections::BTreeMap,
    io,
    ops::{Bound, ControlFlow},
};

use bytes::Bytes;

use super::{Batch, Op, View, Visit};

/// A view of `base` with changes of its own on top.
pub struct Overlay<'a> {
    base: &'a dyn View,
    /// `None` hides the row of the base.
    rows: BTreeMap<Bytes, Option<Bytes>>,
    batch: Batch,
}

impl<'a> Overlay<'a> {
    pub fn new(base: &'a dyn View) -> Overlay<'a> {
        Overlay { base, rows: BTreeMap::new(), batch: Batch::default() }
    }

    pub fn put(&mut self, key: Bytes, value: Bytes) {
        self.rows.insert(key.clone(), Some(value.clone()));
        self.batch.ops.push(Op::Put(key, value));
    }

    pub fn delete(&mut self, key: Bytes) {
        self.rows.insert(key.clone(), None);
        self.batch.ops.push(Op::Delete(key));
    }

    /// How many changes were made.
    pub fn len(&self) -> usize {
        self.batch.ops.len()
    }

    pub fn is_empty(&self) -> bool {
        self.batch.is_empty()
    }

    /// The changes made after the first `count`.
    pub fn since(&self, count: usize) -> &[Op] {
        &self.batch.ops[count..]
    }

    /// All changes, in the order they were made.
    pub fn into_batch(self) -> Batch {
        self.batch
    }
}

impl View for Overlay<'_> {
    fn get(&self, key: &[u8]) -> io::Result<Option<Bytes>> {
        match self.rows.get(key) {
            Some(row) => Ok(row.clone()),
            None => self.base.get(key),
        }
    }

    fn scan(&self, from: &[u8], to: &[u8], visit: Visit<'_>) -> io::Result<()> {
        if from >= to {
            return Ok(());
        }
        let mut own = self.rows.range::<[u8], _>((Bound::Included(from), Bound::Excluded(to))).peekable();
        let mut stopped = false;
        self.base.scan(from, to, &mut |key, value| {
            while let Some((own_key, row)) = own.next_if(|(own_key, _)| own_key.as_ref() < key) {
                if let Some(row) = row
                    && visit(own_key, row)?.is_break()
                {
                    stopped = true;
                    return Ok(ControlFlow::Break(()));
                }
            }
            let flow = match own.next_if(|(own_key, _)| own_key.as_ref() == key) {
                Some((_, Some(row))) => visit(key, row)?,
                Some((_, None)) => ControlFlow::Continue(()),
                None => visit(key, value)?,
            };
            stopped = flow.is_break();
            Ok(flow)
        })?;
        if stopped {
            return Ok(());
        }
        for (key, row) in own {
            if let Some(row) = row
                && visit(key, row)?.is_break()
            {
                break;
            }
        }
        Ok(())
    }
}
