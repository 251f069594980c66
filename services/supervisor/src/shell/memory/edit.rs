//! What became different in a list that is sorted by a key.

use std::cmp::Ordering;

use serde::{Deserialize, Serialize};

/// An element and what it is found by; no two in a list have the same.
pub(in super::super) trait Keyed: Clone + PartialEq {
    type Key: Clone + Ord;

    fn key(&self) -> &Self::Key;
}

/// From one list to another.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(in super::super) struct Edit<K, T> {
    gone: Vec<K>,
    /// New or different.
    set: Vec<T>,
}

impl<T: Keyed> Edit<T::Key, T> {
    /// None if there is no difference. Looks at each element once, and copies those alone that differ.
    pub(super) fn between(before: &[T], after: &[T]) -> Option<Self> {
        let mut edit = Self { gone: Vec::new(), set: Vec::new() };
        let (mut old, mut new) = (before.iter().peekable(), after.iter().peekable());
        loop {
            let order = match (old.peek(), new.peek()) {
                (Some(old), Some(new)) => old.key().cmp(new.key()),
                (Some(_), None) => Ordering::Less,
                (None, Some(_)) => Ordering::Greater,
                (None, None) => break,
            };
            let was = if order.is_le() { old.next() } else { None };
            let is = if order.is_ge() { new.next() } else { None };
            match (was, is) {
                (Some(was), None) => edit.gone.push(was.key().clone()),
                (was, Some(is)) if was != Some(is) => edit.set.push(is.clone()),
                _ => {}
            }
        }
        (!edit.gone.is_empty() || !edit.set.is_empty()).then_some(edit)
    }

    pub(super) fn apply(self, list: &mut Vec<T>) {
        for key in &self.gone {
            if let Ok(at) = list.binary_search_by(|other| other.key().cmp(key)) {
                list.remove(at);
            }
        }
        for element in self.set {
            match list.binary_search_by(|other| other.key().cmp(element.key())) {
                Ok(at) => list.splice(at..=at, [element]).for_each(drop),
                Err(at) => list.insert(at, element),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    impl Keyed for (u8, u8) {
        type Key = u8;

        fn key(&self) -> &u8 {
            &self.0
        }
    }

    fn sorted() -> impl Strategy<Value = Vec<(u8, u8)>> {
        proptest::collection::btree_map(0..12_u8, 0..3_u8, 0..10).prop_map(|map| map.into_iter().collect())
    }

    proptest! {
        #[test]
        fn an_edit_leads_from_one_list_to_the_other(before in sorted(), after in sorted()) {
            let edit = Edit::between(&before, &after);
            prop_assert_eq!(edit.is_none(), before == after);
            let mut list = before.clone();
            if let Some(edit) = edit {
                let kept = edit.set.iter().filter(|element| before.contains(element)).count();
                prop_assert_eq!(kept, 0, "what is as it was is not said again");
                edit.apply(&mut list);
            }
            prop_assert_eq!(list, after);
        }
    }
}
