//! The table against other layouts of the same intervals: time, and memory.
//!
//! Run with `PORTCULLIS_TEST_DATA=… cargo bench --bench layouts`. A *group* is a set of ranges, in which neighbours merge;
//! *a label each* keeps every range apart, as a rule for each does. *Warm* is one table asked for 131,072 addresses, half
//! of them inside the ranges. *Cold* is what a server of many organizations sees: every address goes to another table than
//! the one before, and is asked for only when the answer before it is there.
//!
//! Invariant: before times are taken every layout has given the same answers, at every bound of every range among others.
//! Not here: decisions (`decide`), compiling (`compile`).
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    clippy::cast_precision_loss,
    reason = "a bench that goes wrong ends, and reports to its terminal"
)]

#[expect(dead_code, reason = "only some of what the benches share is needed")]
mod data;
mod layout;

use std::hint::black_box;
use std::time::Duration;

use portcullis::policy::address::Block;
use portcullis::policy::table::Table;

use data::{Family, Random};
use layout::{Bounds, Direct, Eytzinger, Halves, Intervals, Layout, Tree};

/// Addresses of one turn.
const ADDRESSES: usize = 1 << 17;
const ROUNDS: usize = 25;

/// All announced IPv4 ranges.
const FULL: usize = 564_579;

/// Tables and ranges of each, for the cold measure.
const COLD: [(usize, usize); 4] = [(10_000, 10), (5_000, 100), (1_000, 1_000), (100, 10_000)];

/// What takes more than this before it holds anything is left out of the cold measure.
const COLD_BYTES_MAX: usize = 1 << 30;

/// A way of laying intervals out.
struct Way<W> {
    name: &'static str,
    make: fn(&Intervals<W>) -> Box<dyn Measured<W>>,
    /// What even an empty one takes, in bytes.
    least: usize,
}

/// A layout whose lookups run in a loop of their own kind, so that none of them is a call.
trait Measured<W>: Layout<W> {
    /// The sum of the labels.
    fn sum(&self, words: &[W]) -> u64;
    /// Itself, with others of its kind: each question names one of them, and waits for the answer before it.
    fn chain(&self, others: &[Box<dyn Measured<W>>], questions: &[(u32, W)]) -> u64;
    /// For [`Measured::chain`] of its own kind.
    fn as_any(&self) -> &dyn std::any::Any;
}

impl<W: Copy + 'static, L: Layout<W> + 'static> Measured<W> for L {
    fn sum(&self, words: &[W]) -> u64 {
        words.iter().fold(0, |sum, word| sum + u64::from(self.label(*word)))
    }

    fn chain(&self, others: &[Box<dyn Measured<W>>], questions: &[(u32, W)]) -> u64 {
        let own: Vec<&L> = others.iter().map(|other| other.as_any().downcast_ref().unwrap()).collect();
        let mut last = 0;
        questions.iter().fold(0, |sum, (table, word)| {
            // No label has the highest bit, which only we know.
            last = own[(table ^ (last & 1 << 31)) as usize].label(*word);
            sum + u64::from(last)
        })
    }

    fn as_any(&self) -> &dyn std::any::Any {
        self
    }
}

fn table<W: Family>(intervals: &Intervals<W>) -> Box<dyn Measured<W>> {
    let ends = intervals.iter().skip(1).map(|(start, _)| start.previous().unwrap()).chain([W::MAX]);
    Box::new(Table::of_intervals(intervals.iter().zip(ends).map(|((first, label), last)| (*first, last, *label))))
}

/// The layouts of every family, the table first.
fn common<W: Family>() -> Vec<Way<W>> {
    vec![
        Way { name: "table", make: table, least: 0 },
        Way { name: "bounds", make: |intervals| Box::new(Bounds::new(intervals)), least: 0 },
        Way { name: "Eytzinger", make: |intervals| Box::new(Eytzinger::new(intervals)), least: 0 },
        Way { name: "tree of 16", make: |intervals| Box::new(Tree::new(intervals)), least: 0 },
    ]
}

/// Those of IPv4.
fn ways_v4() -> Vec<Way<u32>> {
    let mut ways = common();
    ways.push(Way { name: "16 + search", make: |intervals| Box::new(Halves::new(intervals)), least: 1 << 18 });
    ways.push(Way { name: "DIR-24-8", make: |intervals| Box::new(Direct::new(intervals)), least: 1 << 26 });
    ways
}

/// The intervals of blocks: one label for all, or another for each. Between them the label is 0.
fn intervals<W: Family>(blocks: &[Block<W>], is_group: bool) -> Vec<(W, u32)> {
    let mut sorted: Vec<(W, W, u32)> = (1..)
        .zip(blocks)
        .map(|(label, block)| (block.first(), block.last(), if is_group { 1 } else { label }))
        .collect();
    sorted.sort_unstable();
    let mut intervals = vec![(W::MIN, 0)];
    let mut push = |start: W, label: u32| {
        intervals.pop_if(|(before, _)| *before == start);
        if intervals.last().is_none_or(|(_, before)| *before != label) {
            intervals.push((start, label));
        }
    };
    for (first, last, label) in sorted {
        push(first, label);
        if let Some(next) = last.next() {
            push(next, 0);
        }
    }
    intervals
}

fn address_in<W: Family>(block: Block<W>, random: &mut Random) -> W {
    let host = W::from_bits(random.wide_bits());
    // Without the bits that the block fixes.
    let mut word = block.first();
    for offset in (0..W::BITS).step_by(8) {
        let fixed = block.prefix_length().saturating_sub(offset);
        if fixed < 8 {
            word = word.with_octet_at(offset, host.octet_at(offset) & (u8::MAX >> fixed));
        }
    }
    word
}

/// Half anywhere, half inside the blocks.
fn address<W: Family>(at: usize, blocks: &[Block<W>], random: &mut Random) -> W {
    if at.is_multiple_of(2) {
        W::from_bits(random.wide_bits())
    } else {
        address_in(blocks[random.below(blocks.len())], random)
    }
}

/// Prints, for each way, the time of one lookup, its ratio to the table's, and the memory.
fn report(names: &[&str], bytes: &[f64], runs: &mut [Box<dyn FnMut() -> u64 + '_>]) {
    let mut runs: Vec<_> = runs
        .iter_mut()
        .map(|run| {
            move || {
                // Each takes its own memory back into the caches first, as far as it fits.
                black_box(run());
                data::time(|| _ = black_box(run()))
            }
        })
        .collect();
    let mut runs: Vec<_> = runs.iter_mut().map(|run| run as &mut dyn FnMut() -> Duration).collect();
    let times = data::side_by_side(ROUNDS, &mut runs);
    for ((name, time), bytes) in names.iter().zip(&times).zip(bytes) {
        let each = time / ADDRESSES as f64;
        println!("    {name:<12} {each:>7.1} ns  ×{:>5.2}  {bytes:>12.1} bytes a range", time / times[0]);
    }
}

/// One table.
fn warm<W: Family>(ways: &[Way<W>], ranges: usize, is_group: bool) {
    let blocks = data::ranges::<W>(W::ANNOUNCED, ranges);
    let intervals = intervals(&blocks, is_group);
    let mut random = Random::seeded();
    let words: Vec<W> = (0..ADDRESSES).map(|at| address(at, &blocks, &mut random)).collect();
    let layouts: Vec<_> = ways.iter().map(|way| (way.make)(&intervals)).collect();
    let starts = intervals.iter().flat_map(|(start, _)| [Some(*start), start.previous()]).flatten();
    for word in words.iter().copied().chain(starts).chain([W::MAX]) {
        let label = layouts[0].label(word);
        assert!(layouts.iter().all(|layout| layout.label(word) == label), "at {word:?}");
    }
    let kind = if is_group { "group" } else { "a label each" };
    println!("warm, {kind}, {}, {} ranges, {} intervals:", W::NAME, data::short(ranges), intervals.len());
    let names: Vec<&str> = ways.iter().map(|way| way.name).collect();
    let bytes: Vec<f64> = layouts.iter().map(|layout| layout.bytes() as f64 / ranges as f64).collect();
    let words = &words;
    let mut runs: Vec<Box<dyn FnMut() -> u64 + '_>> = Vec::new();
    for layout in &layouts {
        runs.push(Box::new(|| layout.sum(black_box(words))));
    }
    report(&names, &bytes, &mut runs);
}

/// Many tables.
fn cold<W: Family>(ways: &[Way<W>], tables: usize, ranges: usize) {
    let all = data::ranges::<W>(W::ANNOUNCED, FULL);
    let mut random = Random::seeded();
    let mut policies = Vec::new();
    for _ in 0..tables {
        let from = random.below(all.len() - ranges);
        policies.push(&all[from..from + ranges]);
    }
    let questions: Vec<(u32, W)> = (0..ADDRESSES)
        .map(|at| {
            let table = random.below(tables);
            (u32::try_from(table).unwrap(), address(at, policies[table], &mut random))
        })
        .collect();
    let ways: Vec<&Way<W>> = ways.iter().filter(|way| way.least * tables <= COLD_BYTES_MAX).collect();
    let made = |way: &&Way<W>| policies.iter().map(|blocks| (way.make)(&intervals(blocks, false))).collect::<Vec<_>>();
    let layouts: Vec<Vec<_>> = ways.iter().map(made).collect();
    for (table, word) in &questions {
        let label = layouts[0][*table as usize].label(*word);
        assert!(layouts.iter().all(|layouts| layouts[*table as usize].label(*word) == label), "at {word:?}");
    }
    println!("cold, a label each, {}, {tables} tables of {} ranges:", W::NAME, data::short(ranges));
    let names: Vec<&str> = ways.iter().map(|way| way.name).collect();
    let total = |layouts: &Vec<Box<dyn Measured<W>>>| layouts.iter().map(|layout| layout.bytes()).sum::<usize>() as f64;
    let bytes: Vec<f64> = layouts.iter().map(|layouts| total(layouts) / (tables * ranges) as f64).collect();
    let questions = &questions;
    let mut runs: Vec<Box<dyn FnMut() -> u64 + '_>> = Vec::new();
    for layouts in &layouts {
        runs.push(Box::new(|| layouts[0].chain(layouts, black_box(questions))));
    }
    report(&names, &bytes, &mut runs);
}

fn main() {
    data::print_origin();
    if !data::is_measuring() {
        return;
    }
    for ranges in [10, 1_000, 100_000, FULL] {
        for is_group in [true, false] {
            warm(&ways_v4(), ranges, is_group);
            warm(&common::<u128>(), ranges, is_group);
        }
    }
    for (tables, ranges) in COLD {
        cold(&ways_v4(), tables, ranges);
        cold(&common::<u128>(), tables, ranges);
    }
}
