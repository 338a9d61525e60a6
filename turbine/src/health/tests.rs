//! What flips a node, what does not, and the way back.

use super::*;

#[test]
fn names_are_distinct() {
    let mut names: Vec<_> = Reason::ALL.iter().map(|reason| reason.name()).collect();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), Reason::ALL.len());
}
