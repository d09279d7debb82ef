//! Which objects of a new list are objects of the present list, where the new list gives no ids.
//!
//! Objects with a symbol that occurs once in both lists are the same. Where several look the same, those are paired that
//! keep the order, so that one object put in between is one new object. What remains is paired by the nearest position.
//!
//! Invariant: each object is paired once, and only with one of the same symbol. As many are paired as can be. The work
//! grows with the lists, not with their product.
//! Not here: what makes two objects equal (`rules`, `document`).

use std::collections::HashMap;
use std::hash::Hash;
use std::ops::Range;

/// What an object is recognized by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Symbol<'a, S> {
    /// The new list gives this id.
    Named(&'a str),
    /// It gives none: the object's settings count.
    Settings(S),
}

/// The products of lengths up to which look-alikes between two fixed pairs are paired in the best possible order.
const EXACT_MAX: usize = 1 << 16;

/// For each object of the new list, the index of the object of the present list that it is. None among the symbols is an
/// object that could not be read.
pub(super) fn paired<S: Copy + Eq + Hash>(
    present: &[Symbol<'_, S>],
    new: &[Option<Symbol<'_, S>>],
) -> Vec<Option<usize>> {
    let mut classes: HashMap<Symbol<'_, S>, (Vec<usize>, Vec<usize>)> = HashMap::new();
    for (index, symbol) in present.iter().enumerate() {
        classes.entry(*symbol).or_default().0.push(index);
    }
    for (index, symbol) in new.iter().enumerate() {
        if let Some(symbol) = symbol {
            classes.entry(*symbol).or_default().1.push(index);
        }
    }
    let mut pairs = Pairs { new: vec![None; new.len()], present: vec![false; present.len()] };
    let (mut unique, mut alike) = (Vec::new(), Vec::new());
    for (old, new) in classes.into_values() {
        match (old.as_slice(), new.as_slice()) {
            ([], _) | (_, []) => {}
            ([old], [new]) => unique.push((*new, *old)),
            _ => alike.push((old, new)),
        }
    }
    unique.sort_unstable();
    for (new, old) in &unique {
        pairs.add(*old, *new);
    }
    if !alike.is_empty() {
        pairs.between(present, new, &increasing(&unique), &alike);
        for (old, new) in &alike {
            pairs.nearest(old, new);
        }
    }
    pairs.new
}

struct Pairs {
    new: Vec<Option<usize>>,
    /// Whether an object of the present list is paired.
    present: Vec<bool>,
}

impl Pairs {
    fn add(&mut self, old: usize, new: usize) {
        if let (Some(slot), Some(taken)) = (self.new.get_mut(new), self.present.get_mut(old)) {
            (*slot, *taken) = (Some(old), true);
        }
    }

    /// Pairs look-alikes between pairs that are fixed and in order.
    fn between<S: Copy + Eq>(
        &mut self,
        present: &[Symbol<'_, S>],
        new: &[Option<Symbol<'_, S>>],
        fixed: &[(usize, usize)],
        alike: &[(Vec<usize>, Vec<usize>)],
    ) {
        let mut old_alike: Vec<usize> = alike.iter().flat_map(|(old, _)| old).copied().collect();
        let mut new_alike: Vec<usize> = alike.iter().flat_map(|(_, new)| new).copied().collect();
        old_alike.sort_unstable();
        new_alike.sort_unstable();
        let part = |of: &[usize], from: usize, to: usize| -> Range<usize> {
            of.partition_point(|index| *index < from)..of.partition_point(|index| *index < to)
        };
        let (mut new_from, mut old_from) = (0, 0);
        for (new_to, old_to) in fixed.iter().copied().chain([(new.len(), present.len())]) {
            let old_part = old_alike.get(part(&old_alike, old_from, old_to)).unwrap_or_default();
            let new_part = new_alike.get(part(&new_alike, new_from, new_to)).unwrap_or_default();
            let same = |old: &usize, other: &usize| new.get(*other).copied().flatten() == present.get(*old).copied();
            for (old, new) in in_order(old_part, new_part, same) {
                self.add(old, new);
            }
            (new_from, old_from) = (new_to, old_to);
        }
    }

    /// Pairs what remains of one class: in order, and each with the nearest that leaves enough for those behind.
    fn nearest(&mut self, old: &[usize], new: &[usize]) {
        let is_free = |index: &&usize| !self.present.get(**index).copied().unwrap_or(true);
        let old: Vec<usize> = old.iter().filter(is_free).copied().collect();
        let is_free = |index: &&usize| !self.new.get(**index).is_some_and(Option::is_some);
        let new: Vec<usize> = new.iter().filter(is_free).copied().collect();
        let (short, long) = if old.len() < new.len() { (&old, &new) } else { (&new, &old) };
        let (mut from, mut to) = (0, long.len() - short.len());
        for one in short {
            let choices = long.get(from..=to).unwrap_or_default();
            let at = choices.partition_point(|other| other < one);
            let nearest = [at.checked_sub(1), Some(at)].into_iter().flatten();
            let nearest = nearest.filter_map(|at| Some((choices.get(at)?.abs_diff(*one), at))).min();
            let Some((_, at)) = nearest else { return };
            let other = choices.get(at).copied().unwrap_or_default();
            let (old, new) = if old.len() < new.len() { (*one, other) } else { (other, *one) };
            self.add(old, new);
            (from, to) = (from + at + 1, to + 1);
        }
    }
}

/// The longest part of the pairs, which ascend by their first, in which the second ascends too.
fn increasing(pairs: &[(usize, usize)]) -> Vec<(usize, usize)> {
    // For each length, the index of the pair with the lowest second in which such a part can end.
    let mut ends: Vec<usize> = Vec::new();
    let mut before: Vec<Option<usize>> = Vec::with_capacity(pairs.len());
    let second = |index: usize| pairs.get(index).map(|(_, second)| *second);
    for (index, (_, value)) in pairs.iter().enumerate() {
        let length = ends.partition_point(|end| second(*end) < Some(*value));
        before.push(length.checked_sub(1).and_then(|shorter| ends.get(shorter).copied()));
        match ends.get_mut(length) {
            Some(end) => *end = index,
            None => ends.push(index),
        }
    }
    let follow = |index: &usize| before.get(*index).copied().flatten();
    let mut part: Vec<_> =
        std::iter::successors(ends.last().copied(), follow).filter_map(|index| pairs.get(index).copied()).collect();
    part.reverse();
    part
}

/// Pairs of equal items in the order of both lists: as many as there can be, unless the lists are very long.
fn in_order(old: &[usize], new: &[usize], same: impl Fn(&usize, &usize) -> bool) -> Vec<(usize, usize)> {
    let pairs = |old: &[usize], new: &[usize]| -> Vec<(usize, usize)> {
        old.iter().zip(new).take_while(|(old, new)| same(old, new)).map(|(old, new)| (*old, *new)).collect()
    };
    let mut all = pairs(old, new);
    let (old, new) = (old.get(all.len()..).unwrap_or_default(), new.get(all.len()..).unwrap_or_default());
    let behind = old.iter().rev().zip(new.iter().rev()).take_while(|(old, new)| same(old, new));
    let behind: Vec<_> = behind.map(|(old, new)| (*old, *new)).collect();
    let old = old.get(..old.len() - behind.len()).unwrap_or_default();
    let new = new.get(..new.len() - behind.len()).unwrap_or_default();
    all.extend(behind);
    if old.len().saturating_mul(new.len()) <= EXACT_MAX {
        all.extend(longest_common(old, new, same));
    }
    all
}

/// The longest common subsequence, by the table of the lengths for all pairs of suffixes.
fn longest_common(old: &[usize], new: &[usize], same: impl Fn(&usize, &usize) -> bool) -> Vec<(usize, usize)> {
    let width = new.len() + 1;
    let mut lengths = vec![0_usize; (old.len() + 1) * width];
    let at = |lengths: &[usize], i: usize, j: usize| lengths.get(i * width + j).copied().unwrap_or_default();
    for (i, one) in old.iter().enumerate().rev() {
        for (j, other) in new.iter().enumerate().rev() {
            let length = if same(one, other) {
                at(&lengths, i + 1, j + 1) + 1
            } else {
                at(&lengths, i + 1, j).max(at(&lengths, i, j + 1))
            };
            if let Some(slot) = lengths.get_mut(i * width + j) {
                *slot = length;
            }
        }
    }
    let (mut pairs, mut i, mut j) = (Vec::new(), 0, 0);
    while let (Some(one), Some(other)) = (old.get(i), new.get(j)) {
        if same(one, other) {
            pairs.push((*one, *other));
            (i, j) = (i + 1, j + 1);
        } else if at(&lengths, i + 1, j) >= at(&lengths, i, j + 1) {
            i += 1;
        } else {
            j += 1;
        }
    }
    pairs
}

#[cfg(test)]
mod tests {
    use super::{Symbol, paired};

    fn settings(text: &str) -> Vec<Symbol<'_, char>> {
        text.chars().map(Symbol::Settings).collect()
    }

    fn pairs(present: &str, new: &str) -> Vec<Option<usize>> {
        paired(&settings(present), &settings(new).into_iter().map(Some).collect::<Vec<_>>())
    }

    #[test]
    fn what_is_put_in_between_is_new_and_all_else_is_what_it_was() {
        assert_eq!(pairs("abc", "abxc"), [Some(0), Some(1), None, Some(2)]);
        // Also where objects look the same: one of them is new, and the order of the others holds.
        assert_eq!(pairs("ababa", "abaaba"), [0, 1, 2, 9, 3, 4].map(|at| (at < 9).then_some(at)));
        let twenty = "a".repeat(20);
        let found = pairs(&twenty, &"a".repeat(21));
        let kept: Vec<usize> = found.iter().flatten().copied().collect();
        assert_eq!((kept, found.len()), ((0..20).collect(), 21));
    }

    #[test]
    fn what_moves_stays_the_same_object_by_the_nearest_position() {
        assert_eq!(pairs("abc", "cab"), [Some(2), Some(0), Some(1)]);
        assert_eq!(pairs("axxxxa", "xxxxa"), [Some(1), Some(2), Some(3), Some(4), Some(5)]);
        assert_eq!(pairs("aab", "baa"), [Some(2), Some(0), Some(1)]);
        assert_eq!(pairs("", "ab"), [None, None]);
        assert_eq!(pairs("ab", ""), []);
    }

    #[test]
    fn a_named_object_is_not_taken_for_another_that_equals_it() {
        let present = [Symbol::Named("one"), Symbol::Settings('a')];
        let new = [Some(Symbol::Settings('a')), None, Some(Symbol::Named("one")), Some(Symbol::Settings('a'))];
        let found = paired(&present, &new);
        assert_eq!((found[1], found[2]), (None, Some(0)));
        assert_eq!(found.iter().flatten().count(), 2);
    }

    #[test]
    fn as_many_as_can_be_are_paired_whatever_the_lists_are() {
        let mut state = 7_u64;
        let mut random = move |below: u64| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 33) % below
        };
        for _ in 0..2_000 {
            let mut list = |letters| {
                (0..random(30)).map(|_| char::from(b'a' + u8::try_from(random(letters)).unwrap())).collect::<String>()
            };
            let (present, new) = (list(8), list(8));
            let found = pairs(&present, &new);
            let mut used = std::collections::BTreeSet::new();
            for (letter, old) in new.chars().zip(&found) {
                if let Some(old) = old {
                    assert_eq!(present.chars().nth(*old), Some(letter), "{present} {new}");
                    assert!(used.insert(*old), "{present} {new}");
                }
            }
            let possible: usize =
                ('a'..='h').map(|letter| present.matches(letter).count().min(new.matches(letter).count())).sum();
            assert_eq!(used.len(), possible, "{present} {new}");
        }
    }

    #[test]
    fn a_hundred_thousand_look_alikes_take_no_quadratic_time() {
        let present: Vec<_> = (0..100_000_u32).map(|at| Symbol::<u32>::Settings(at % 3)).collect();
        let new: Vec<_> = (0..100_000_u32).map(|at| Some(Symbol::Settings((at * 7 + 1) % 3))).collect();
        let begin = std::time::Instant::now();
        assert_eq!(paired(&present, &new).iter().flatten().count(), 99_999);
        assert!(begin.elapsed() < std::time::Duration::from_secs(5), "{:?}", begin.elapsed());
    }
}
