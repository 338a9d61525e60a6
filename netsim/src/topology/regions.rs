//! Reads regions with their numbers of nodes, such as `us-east-1:30,eu-central-1:50`.

use std::collections::BTreeSet;

/// The most characters of a region's name that are compared with known ones.
const MAX_NAME: usize = 64;
/// The most known regions that an error lists.
const LISTED: usize = 40;

/// An error in a list of regions.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SpecError {
    /// A part does not have the form REGION:NODES.
    #[error(
        "`{part}`: write REGION:NODES, several with commas, as in us-east-1:30,eu-central-1:50"
    )]
    Form {
        /// The part.
        part: String,
    },
    /// The number of nodes is not one.
    #[error("`{part}`: the number of nodes must be a whole number from 1 to {}", super::MAX_NODES)]
    Count {
        /// The part.
        part: String,
    },
    /// A region occurs twice.
    #[error("`{region}` is there twice; add its nodes up")]
    Twice {
        /// The region.
        region: String,
    },
    /// A region is unknown.
    #[error("`{region}` is not in {of}; did you mean {nearest}? Known are {known}")]
    Unknown {
        /// The region.
        region: String,
        /// The source that does not have it.
        of: String,
        /// The known region with the most similar name.
        nearest: String,
        /// Other known regions.
        known: String,
    },
}

/// Reads a list of regions with their numbers of nodes. The names are checked only when a world is
/// built, since a matrix may have other regions.
///
/// # Errors
///
/// A part is not REGION:NODES, or a region occurs twice.
pub fn parse_regions(text: &str) -> Result<Vec<(String, u32)>, SpecError> {
    let part = |part: &str| {
        let form = || SpecError::Form { part: shortened(part) };
        let (region, count) = part.split_once(':').ok_or_else(form)?;
        let region = region.trim();
        if region.is_empty() || region.chars().any(char::is_control) {
            return Err(form());
        }
        let count = count.trim().parse().ok().filter(|count| is_count(*count));
        let count = count.ok_or_else(|| SpecError::Count { part: shortened(part) })?;
        Ok((region.to_owned(), count))
    };
    let counts = text.split(',').map(part).collect::<Result<Vec<_>, _>>()?;
    only_once(&counts)?;
    Ok(counts)
}

fn is_count(count: u32) -> bool {
    (1..=super::MAX_NODES as u32).contains(&count)
}

/// The part of a user's text that an error shows.
fn shortened(part: &str) -> String {
    part.trim().chars().take(MAX_NAME).collect()
}

fn only_once(counts: &[(String, u32)]) -> Result<(), SpecError> {
    let mut seen = BTreeSet::new();
    match counts.iter().find(|(region, _)| !seen.insert(region)) {
        None => Ok(()),
        Some((region, _)) => Err(SpecError::Twice { region: shortened(region) }),
    }
}

/// The indices of the regions among the `known` ones of the source `of`.
pub(super) fn choose(
    counts: &[(String, u32)],
    known: &[String],
    of: &str,
) -> Result<Vec<usize>, SpecError> {
    only_once(counts)?;
    let one = |(region, count): &(String, u32)| {
        if !is_count(*count) {
            return Err(SpecError::Count { part: format!("{}:{count}", shortened(region)) });
        }
        let unknown = || SpecError::Unknown {
            region: shortened(region),
            of: of.into(),
            nearest: nearest(region, known),
            known: listed(known),
        };
        known.iter().position(|name| name == region).ok_or_else(unknown)
    };
    counts.iter().map(one).collect()
}

fn listed(known: &[String]) -> String {
    let more = known.len().saturating_sub(LISTED);
    let list = known.iter().take(LISTED).map(String::as_str).collect::<Vec<_>>().join(", ");
    if more > 0 { format!("{list} and {more} more") } else { list }
}

/// The known name with the fewest edits.
fn nearest(region: &str, known: &[String]) -> String {
    let region = shortened(region).to_lowercase();
    known
        .iter()
        .min_by_key(|name| crate::input::edits(&region, &shortened(name)))
        .cloned()
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn lists_are_read_and_told_by_their_parts() {
        assert_eq!(
            parse_regions(" us-east-1:30, eu-central-1 : 50").unwrap(),
            [("us-east-1".to_owned(), 30), ("eu-central-1".to_owned(), 50)]
        );
        let error = |text: &str| parse_regions(text).unwrap_err();
        for bad in ["", "a:1,", "us-east-1", ":3", "a:1,\u{7}:3"] {
            assert!(matches!(error(bad), SpecError::Form { .. }), "{bad:?}");
        }
        for bad in ["0", "-1", "x", "", "1.5", "10001", "99999999999"] {
            let error = error(&format!("b:2,a:{bad}"));
            assert!(matches!(&error, SpecError::Count { .. }), "{bad:?}: {error}");
            assert!(error.to_string().contains(&format!("`a:{bad}`")), "{error}");
        }
        assert_eq!(error("a:1,b:2,a:3"), SpecError::Twice { region: "a".into() });
    }

    #[test]
    fn an_unknown_region_is_told_with_the_nearest() {
        let known: Vec<String> =
            crate::geo::REGIONS.iter().map(|region| region.name.into()).collect();
        let choose = |name: &str| choose(&[(name.into(), 1)], &known, "the table");
        assert_eq!(choose("us-west-2").unwrap(), [32]);
        for (typed, meant) in
            [("us-est-1", "us-east-1"), ("EU-CENTRAL-1", "eu-central-1"), ("sa-east1", "sa-east-1")]
        {
            let error = choose(typed).unwrap_err().to_string();
            assert!(error.contains(&format!("did you mean {meant}?")), "{error}");
            assert!(error.contains("the table") && error.contains("mx-central-1"), "{error}");
        }
        let many: Vec<String> = (0..50).map(|i| format!("r{i}")).collect();
        assert!(listed(&many).ends_with("r39 and 10 more"));
    }

    proptest! {
        #[test]
        fn garbage_never_panics(text in prop_oneof![".{0,100}", "[a-c,:0-9 -]{0,60}"]) {
            if let Ok(counts) = parse_regions(&text) {
                prop_assert!(!counts.is_empty());
                // No known name is similar.
                prop_assert!(choose(&counts, &["\n".to_owned()], "nothing").is_err());
            }
        }
    }
}
