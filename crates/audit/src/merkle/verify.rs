//! Verification of proofs, step by step as RFC 9162 words it.
//!
//! Invariant: knows nothing of [`super::MerkleTree`]: what proves and what verifies share only the hash functions.
//! Not here: signatures over roots (`note`).

use thiserror::Error;

use super::hash::{Hash, TreeHead, empty_root, node_hash};

/// Why a proof does not hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum VerifyError {
    /// The leaf lies beyond the tree.
    #[error("leaf index {index} is not below tree size {size}: ask for a proof in a larger tree")]
    IndexBeyondTree {
        /// Index of the leaf, from 0.
        index: u64,
        /// Leaves of the tree.
        size: u64,
    },
    /// The older tree is the larger one.
    #[error("first tree size {first} is larger than second tree size {second}: swap them")]
    SizesSwapped {
        /// Leaves of the older tree.
        first: u64,
        /// Leaves of the newer tree.
        second: u64,
    },
    /// The proof has more or fewer hashes than a proof of its sizes.
    #[error("the proof has the wrong number of hashes, {0}: it belongs to another record or tree size")]
    PathLength(usize),
    /// The leaf is not in the tree of that root, or not there.
    #[error("the proof leads to root {computed} instead of {expected}: the record or the log was changed")]
    Root {
        /// What leaf and proof hash to.
        computed: Hash,
        /// What was signed.
        expected: Hash,
    },
    /// The proof does not start from the older tree.
    #[error("the proof leads to first root {computed} instead of {expected}: the log was changed below the first size")]
    FirstRoot {
        /// What the proof hashes to.
        computed: Hash,
        /// What was signed.
        expected: Hash,
    },
    /// The proof does not lead to the newer tree.
    #[error("the proof leads to second root {computed} instead of {expected}: the log was changed")]
    SecondRoot {
        /// What the proof hashes to.
        computed: Hash,
        /// What was signed.
        expected: Hash,
    },
}

/// Checks that the leaf of hash `leaf` is at `index` in the tree of `head` (RFC 9162 §2.1.3.2).
pub fn verify_inclusion(leaf: Hash, index: u64, head: TreeHead, path: &[Hash]) -> Result<(), VerifyError> {
    let TreeHead { size, root: expected } = head;
    let wrong_length = VerifyError::PathLength(path.len());
    let mut last = match size.checked_sub(1) {
        Some(last) if index <= last => last,
        _ => return Err(VerifyError::IndexBeyondTree { index, size }),
    };
    let mut at = index;
    let mut computed = leaf;
    for &sibling in path {
        if last == 0 {
            return Err(wrong_length);
        }
        if at % 2 == 1 || at == last {
            computed = node_hash(sibling, computed);
            skip_unpaired(&mut at, &mut last);
        } else {
            computed = node_hash(computed, sibling);
        }
        at >>= 1;
        last >>= 1;
    }
    if last != 0 {
        return Err(wrong_length);
    }
    if computed == expected { Ok(()) } else { Err(VerifyError::Root { computed, expected }) }
}

/// Checks that the tree of `second` is the tree of `first` with leaves appended (RFC 9162 §2.1.4.2).
///
/// Trees of equal size have equal roots and an empty proof. So has an empty first tree, which every tree continues.
pub fn verify_consistency(first: TreeHead, second: TreeHead, path: &[Hash]) -> Result<(), VerifyError> {
    let wrong_length = VerifyError::PathLength(path.len());
    if first.size > second.size {
        return Err(VerifyError::SizesSwapped { first: first.size, second: second.size });
    }
    let first_is = |computed: Hash| {
        let expected = first.root;
        if computed == expected { Ok(()) } else { Err(VerifyError::FirstRoot { computed, expected }) }
    };
    let second_is = |computed: Hash| {
        let expected = second.root;
        if computed == expected { Ok(()) } else { Err(VerifyError::SecondRoot { computed, expected }) }
    };
    if first.size == 0 {
        first_is(empty_root())?;
    }
    if first.size == second.size || first.size == 0 {
        if !path.is_empty() {
            return Err(wrong_length);
        }
        return if first.size == second.size { second_is(first.root) } else { Ok(()) };
    }

    // A first tree that is one full subtree starts the proof with its own root, which the path leaves out.
    let (start, rest) = match path {
        [] => return Err(wrong_length),
        path if first.size.is_power_of_two() => (first.root, path),
        [start, rest @ ..] => (*start, rest),
    };
    let mut at = first.size - 1;
    let mut last = second.size - 1;
    let full = at.trailing_ones();
    at >>= full;
    last >>= full;
    let (mut in_first, mut in_second) = (start, start);
    for &sibling in rest {
        if last == 0 {
            return Err(wrong_length);
        }
        if at % 2 == 1 || at == last {
            in_first = node_hash(sibling, in_first);
            in_second = node_hash(sibling, in_second);
            skip_unpaired(&mut at, &mut last);
        } else {
            in_second = node_hash(in_second, sibling);
        }
        at >>= 1;
        last >>= 1;
    }
    if last != 0 {
        return Err(wrong_length);
    }
    first_is(in_first)?;
    second_is(in_second)
}

/// On the right edge a node without a sibling stands for its parent too: climbs to where it is a right child.
fn skip_unpaired(at: &mut u64, last: &mut u64) {
    while at.is_multiple_of(2) && *at != 0 {
        *at >>= 1;
        *last >>= 1;
    }
}
