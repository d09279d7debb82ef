//! The latest expire time of the rules so far, for each class of addresses.
//!
//! Invariant: raising a run of classes and asking for its least takes steps in proportion to the logarithm of the number
//! of classes.
//! Not here: what the classes are (`classes`).

/// Expire times by rank: 0 is before all, and this one after all.
pub(super) const NEVER: u32 = u32::MAX;

/// The latest expire time that covers each class, by rank: a tree over their minima.
pub(super) struct Covered {
    /// The least rank below each node, and what the whole node was raised to.
    nodes: Vec<(u32, u32)>,
    half: usize,
}

impl Covered {
    pub(super) fn new(classes: usize) -> Self {
        let size = classes.max(1).next_power_of_two();
        // Places behind the last class never are the least.
        let mut nodes = vec![(0, 0); 2 * size];
        for (place, node) in nodes.iter_mut().skip(size).enumerate() {
            node.0 = if place < classes { 0 } else { NEVER };
        }
        Self { nodes, half: size }
    }

    /// Raises the classes of a run to a rank, and returns the least that one of them had.
    pub(super) fn raise(&mut self, (first, end): (u32, u32), rank: u32) -> u32 {
        self.raise_below(1, (0, self.half), (first as usize, end as usize), rank, 0)
    }

    fn raise_below(
        &mut self,
        at: usize,
        (from, to): (usize, usize),
        run: (usize, usize),
        rank: u32,
        above: u32,
    ) -> u32 {
        let (first, end) = run;
        let Some((least, raised)) = self.nodes.get(at).copied() else { return NEVER };
        if end <= from || to <= first {
            return NEVER;
        }
        let above = above.max(raised);
        if first <= from && to <= end {
            if let Some(node) = self.nodes.get_mut(at) {
                *node = (least.max(rank), raised.max(rank));
            }
            return least.max(above);
        }
        let middle = from.midpoint(to);
        let left = self.raise_below(2 * at, (from, middle), run, rank, above);
        let right = self.raise_below(2 * at + 1, (middle, to), run, rank, above);
        let below = |child: usize| self.nodes.get(child).map_or(NEVER, |(least, _)| *least);
        let least = below(2 * at).min(below(2 * at + 1)).max(raised);
        if let Some(node) = self.nodes.get_mut(at) {
            node.0 = least;
        }
        left.min(right)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_are_raised_and_their_least_is_told() {
        for classes in [1_u32, 2, 3, 7, 8, 13] {
            let (mut covered, mut plain) = (Covered::new(classes as usize), vec![0_u32; classes as usize]);
            let mut seed = 1_u32;
            for _ in 0..500 {
                seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                let (one, other) = ((seed >> 8) % classes, (seed >> 16) % classes);
                let (first, last, rank) = (one.min(other), one.max(other), (seed >> 4) % 40);
                let run = &mut plain[first as usize..=last as usize];
                assert_eq!(covered.raise((first, last + 1), rank), run.iter().copied().min().unwrap());
                for of_class in run {
                    *of_class = rank.max(*of_class);
                }
            }
        }
    }
}
