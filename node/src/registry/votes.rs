//! Which list counts when sources differ.
//!
//! Each source that has answered lately has one vote for its list: the addresses in their order. The
//! list with most votes counts. Of several with as many, the one in use stays, if it is among them;
//! else the one whose source is configured first. So with two sources both must know of a
//! registration, with three two of them.

use alloy_primitives::Address;

/// The outcome of a vote.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Vote {
    /// The list that counts.
    pub list: Vec<Address>,
    /// Whether all that voted said the same.
    pub agree: bool,
}

/// Counts the votes, in the order of the configuration; `None` of those that have none. Gives `None`
/// if nobody has any.
pub fn count<'a>(
    votes: impl IntoIterator<Item = Option<&'a [Address]>>,
    in_use: &[Address],
) -> Option<Vote> {
    // By the order in which they come: lists, and how many say so.
    let mut lists: Vec<(&[Address], usize)> = Vec::new();
    for vote in votes.into_iter().flatten() {
        match lists.iter_mut().find(|(list, _)| *list == vote) {
            Some((_, votes)) => *votes += 1,
            None => lists.push((vote, 1)),
        }
    }
    let most = lists.iter().map(|(_, votes)| *votes).max()?;
    let agree = lists.len() == 1;
    let mut leading = lists.into_iter().filter(|(_, votes)| *votes == most).map(|(list, _)| list);
    let first = leading.next()?;
    let list = if leading.any(|list| list == in_use) { in_use } else { first };
    Some(Vote { list: list.to_vec(), agree })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(gateways: &[u8]) -> Vec<Address> {
        gateways.iter().map(|n| Address::with_last_byte(*n)).collect()
    }

    /// Who counts, by the numbers of its gateways, and whether all agree.
    fn vote(votes: &[Option<&[u8]>], in_use: &[u8]) -> Option<(Vec<u8>, bool)> {
        let lists: Vec<Option<Vec<Address>>> = votes.iter().map(|v| v.map(list)).collect();
        let vote = count(lists.iter().map(Option::as_deref), &list(in_use))?;
        Some((vote.list.iter().map(|address| address[19]).collect(), vote.agree))
    }

    #[test]
    fn most_count_and_of_equals_the_one_in_use_then_the_first() {
        let [old, new, other] = [&[1, 2][..], &[1, 2, 3], &[2, 1]];
        assert_eq!(vote(&[], old), None);
        assert_eq!(vote(&[None, None], old), None);
        assert_eq!(vote(&[None, Some(new)], old), Some((vec![1, 2, 3], true)));
        // Two sources: the one that is ahead waits for the other.
        assert_eq!(vote(&[Some(new), Some(old)], old), Some((vec![1, 2], false)));
        assert_eq!(vote(&[Some(old), Some(new)], old), Some((vec![1, 2], false)));
        assert_eq!(vote(&[Some(new), Some(new)], old), Some((vec![1, 2, 3], true)));
        // Neither is in use: the first.
        assert_eq!(vote(&[Some(new), Some(other)], old), Some((vec![1, 2, 3], false)));
        // Three: two of them.
        assert_eq!(vote(&[Some(old), Some(new), Some(new)], old), Some((vec![1, 2, 3], false)));
        // The order is part of a rotation.
        assert_eq!(vote(&[Some(other), None, Some(old)], old), Some((vec![1, 2], false)));
    }
}
