//! Views of plans that the nodes of one [`Setup`](crate::protocol::Setup) share.
//!
//! A view is a function of the frame that the plan came in and of the membership table, so nodes in
//! one process need it once: without this a simulation of 10,000 nodes would take 7 GB for one plan.
//! A daemon has one node, and its views live as long as it keeps the plans.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use bytes::Bytes;

use crate::plan::PlanView;

/// Entries from which on those are dropped that nobody uses any more.
const MANY: usize = 64;

/// By the hash of a frame: what it makes, and the frame itself.
type Known = BTreeMap<[u8; 32], (Weak<PlanView>, Bytes)>;

/// See the module.
#[derive(Debug, Clone, Default)]
pub(in crate::protocol) struct Views(Arc<Mutex<Known>>);

impl Views {
    /// The view that a frame makes by `make`, and the frame, both shared. The table must be the one
    /// that the frame names.
    ///
    /// # Errors
    /// Those of `make`.
    pub(in crate::protocol) fn of<E>(
        &self,
        frame: Bytes,
        make: impl FnOnce() -> Result<PlanView, E>,
    ) -> Result<(Arc<PlanView>, Bytes), E> {
        let hash = *blake3::hash(&frame).as_bytes();
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((view, frame)) = known.get(&hash)
            && let Some(view) = view.upgrade()
        {
            return Ok((view, frame.clone()));
        }
        let view = Arc::new(make()?);
        if known.len() >= MANY {
            known.retain(|_, (view, _)| view.strong_count() > 0);
        }
        known.insert(hash, (Arc::downgrade(&view), frame.clone()));
        Ok((view, frame))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_view_is_made_once_as_long_as_somebody_has_it() {
        let (views, frame) = (Views::default(), Bytes::from_static(b"plan"));
        let make = |id| move || Ok::<_, ()>(PlanView::from_weights(id, &[1, 1]));
        assert!(views.of(frame.clone(), || Err::<PlanView, ()>(())).is_err());
        let (first, _) = views.of(frame.clone(), make(1)).unwrap();
        let (again, _) = views.of(frame.clone(), make(2)).unwrap();
        assert!(Arc::ptr_eq(&first, &again));
        drop((first, again));
        assert_eq!(views.of(frame, make(3)).unwrap().0.id(), 3);
        for n in 0..1_000u32 {
            views.of(n.to_le_bytes().to_vec().into(), make(n.into())).unwrap();
        }
        assert!(views.0.lock().unwrap().len() <= MANY, "what nobody has is dropped");
    }
}
