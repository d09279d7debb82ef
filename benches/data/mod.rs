//! What the benches of the policy core run on: the ranges, the seeded randomness, and the loop that compares.
//!
//! Invariant: the same inputs in every run; what is compared is measured in turns within one run, so that a noisy
//! machine is noisy for all alike.
//! Not here: what is compared with what (the benches).

use std::fmt;
use std::io::Read;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use flate2::read::GzDecoder;
use portcullis::policy::address::{Block, Range};
use portcullis::policy::group::Group;
use portcullis::policy::name::Id;
use portcullis::policy::node::{Access, Node};
use portcullis::policy::organization::Organization;
use portcullis::policy::rule::{Action, Rule, RulePatch, Source};
use portcullis::policy::time::Timestamp;
use portcullis::policy::word::Word;

/// The seed of everything random.
const SEED: u64 = 0x706f_7274_6375_6c6c;

/// The environment variable that names the directory of the real ranges.
const DATA_VARIABLE: &str = "PORTCULLIS_TEST_DATA";

/// `SplitMix64` (Steele, Lea, Flood 2014): enough for test data, and the same on every machine.
pub(crate) struct Random(u64);

impl Random {
    /// The generator that every bench starts from.
    pub(crate) fn seeded() -> Self {
        Self(SEED)
    }

    /// 64 random bits.
    pub(crate) fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// 128 random bits.
    pub(crate) fn wide_bits(&mut self) -> u128 {
        u128::from(self.bits()) << 64 | u128::from(self.bits())
    }

    /// A number below `end`.
    pub(crate) fn below(&mut self, end: usize) -> usize {
        usize::try_from((u128::from(self.bits()) * end as u128) >> 64).unwrap()
    }

    /// Puts the items in random order.
    pub(crate) fn shuffle<T>(&mut self, items: &mut [T]) {
        for at in (1..items.len()).rev() {
            items.swap(at, self.below(at + 1));
        }
    }
}

/// What the benches need of an address family beyond [`Word`].
pub(crate) trait Family: Word {
    /// How ids of benches name it.
    const NAME: &'static str;
    /// The file of announced ranges, without overlaps.
    const ANNOUNCED: &'static str;
    /// The file of the clouds' ranges, half of which lie inside others.
    const CLOUD: &'static str;

    /// The low bits as an address of the family.
    fn from_bits(bits: u128) -> Self;
    /// The block as the policy knows it.
    fn range(block: Block<Self>) -> Range;
    /// The block of this family that a range is.
    fn block(range: Range) -> Option<Block<Self>>;
    /// A prefix as routing tables have them: its first address and length.
    fn route(random: &mut Random) -> (Self, u8);

    /// A block of a given length around an address.
    fn block_around(self, prefix_length: u8) -> Block<Self> {
        Block::new(self.network(prefix_length), prefix_length).unwrap()
    }
}

impl Family for u32 {
    const NAME: &'static str = "ipv4";
    const ANNOUNCED: &'static str = "asn-ipv4.cidr.gz";
    const CLOUD: &'static str = "cloud-ipv4-nested.cidr.gz";

    fn from_bits(bits: u128) -> Self {
        (bits & u128::from(u32::MAX)).try_into().unwrap()
    }

    fn range(block: Block<Self>) -> Range {
        Range::V4(block)
    }

    fn block(range: Range) -> Option<Block<Self>> {
        if let Range::V4(block) = range { Some(block) } else { None }
    }

    fn route(random: &mut Random) -> (Self, u8) {
        // Half of all announced IPv4 prefixes are /24, the others mostly /16 to /23.
        let length = if random.below(2) == 0 { 24 } else { 16 + u8::try_from(random.below(8)).unwrap() };
        (Self::from_bits(random.wide_bits()), length)
    }
}

impl Family for u128 {
    const NAME: &'static str = "ipv6";
    const ANNOUNCED: &'static str = "asn-ipv6.cidr.gz";
    const CLOUD: &'static str = "cloud-ipv6.cidr.gz";

    fn from_bits(bits: u128) -> Self {
        bits
    }

    fn range(block: Block<Self>) -> Range {
        Range::V6(block)
    }

    fn block(range: Range) -> Option<Block<Self>> {
        if let Range::V6(block) = range { Some(block) } else { None }
    }

    fn route(random: &mut Random) -> (Self, u8) {
        // Half of all announced IPv6 prefixes are /48, the others mostly /29 to /44, all of them in 2000::/3.
        let length = if random.below(2) == 0 { 48 } else { 29 + u8::try_from(random.below(16)).unwrap() };
        (0b001 << 125 | random.wide_bits() >> 3, length)
    }
}

/// Says where the ranges come from.
#[expect(clippy::print_stdout, reason = "a bench reports to its terminal")]
pub(crate) fn print_origin() {
    match data_directory() {
        Some(directory) => println!("ranges: real ones from {}", directory.display()),
        None => println!("ranges: seeded, GENERATED ones, for {DATA_VARIABLE} is not set; ratios on real ones differ"),
    }
}

fn data_directory() -> Option<PathBuf> {
    std::env::var_os(DATA_VARIABLE).filter(|value| !value.is_empty()).map(PathBuf::from)
}

/// So many distinct ranges in random order: those of a file, or generated ones where there is no file. Where there are
/// too few, some are split in halves, so that disjoint ranges stay disjoint.
pub(crate) fn ranges<W: Family>(file: &str, count: usize) -> Vec<Block<W>> {
    let mut random = Random::seeded();
    let mut blocks = match data_directory() {
        Some(directory) => read::<W>(&directory.join(file)),
        None => generate::<W>(file == W::ANNOUNCED, count, &mut random),
    };
    random.shuffle(&mut blocks);
    blocks.truncate(count);
    while blocks.len() < count {
        let at = random.below(blocks.len());
        let (whole, length) = (blocks[at], blocks[at].prefix_length() + 1);
        if length <= W::BITS {
            blocks[at] = whole.first().block_around(length);
            blocks.push(whole.last().block_around(length));
        }
    }
    random.shuffle(&mut blocks);
    blocks
}

/// About so many ranges, without those that lie inside others if they are to be disjoint.
fn generate<W: Family>(disjoint: bool, count: usize, random: &mut Random) -> Vec<Block<W>> {
    let routes = (0..count).map(|_| W::route(random));
    let mut blocks: Vec<Block<W>> = routes.map(|(address, length)| address.block_around(length)).collect();
    blocks.sort_unstable();
    blocks.dedup();
    if disjoint {
        let mut last = None;
        blocks.retain(|block| {
            let behind = last.is_none_or(|last| block.first() > last);
            last = if behind { Some(block.last()) } else { last };
            behind
        });
    }
    blocks
}

fn read<W: Family>(path: &std::path::Path) -> Vec<Block<W>> {
    let mut text = String::new();
    let file = std::fs::File::open(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    GzDecoder::new(file).read_to_string(&mut text).unwrap();
    let mut blocks: Vec<Block<W>> = text.lines().filter_map(|line| W::block(line.parse().unwrap())).collect();
    blocks.sort_unstable();
    blocks.dedup();
    blocks
}

/// A count in few characters: `10`, `1k`, `565k`, `1M`.
pub(crate) fn short(count: usize) -> impl fmt::Display {
    match count {
        1_000_000.. => format!("{}M", count / 1_000_000),
        1_000.. => format!("{}k", count.div_ceil(1_000)),
        _ => count.to_string(),
    }
}

/// An organization without anything in it.
pub(crate) fn organization() -> Organization {
    Organization::new(id("default"), 1, Node::new(Access::AllowAll, Timestamp::default(), 1))
}

/// An id.
pub(crate) fn id(text: &str) -> Id {
    Id::parse(text).unwrap()
}

/// Adds a group.
pub(crate) fn add_group(organization: &mut Organization, name: &str, ranges: impl IntoIterator<Item = Range>) {
    let group = Group::new(id(name), "".into(), ranges.into_iter().collect(), Timestamp::default(), 1);
    organization.groups.insert(id(name), Arc::new(group));
}

/// The rules in order, each of its action and source.
pub(crate) fn set_rules(organization: &mut Organization, rules: impl IntoIterator<Item = (Action, Source)>) {
    let rules = rules.into_iter().enumerate();
    organization.rules = Arc::new(rules.map(|(at, (action, source))| Arc::new(rule(at, action, source))).collect());
}

/// A rule that is named after its place.
pub(crate) fn rule(at: usize, action: Action, source: Source) -> Rule {
    let patch = RulePatch { action: Some(action), source: Some(source), ..RulePatch::default() };
    patch.to_rule(id(&format!("rule-{at}")), Timestamp::default(), 1).unwrap()
}

/// Rules of one range each that allow and deny in turns.
pub(crate) fn rule_per_range<W: Family>(blocks: &[Block<W>]) -> impl Iterator<Item = (Action, Source)> {
    let actions = [Action::Deny, Action::Allow].into_iter().cycle();
    actions.zip(blocks).map(|(action, block)| (action, Source::Range(W::range(*block))))
}

/// Lets what is compared take turns and gives, for each, the median of the times that it took, in nanoseconds. Each
/// measures itself, so that it can prepare what is not to be measured.
#[expect(clippy::cast_precision_loss, reason = "times are short")]
pub(crate) fn side_by_side(rounds: usize, contestants: &mut [&mut dyn FnMut() -> Duration]) -> Vec<f64> {
    let mut times = vec![Vec::with_capacity(rounds); contestants.len()];
    for _ in 0..rounds {
        for (contestant, times) in contestants.iter_mut().zip(&mut times) {
            times.push(contestant().as_nanos() as f64);
        }
    }
    let median = |times: &mut Vec<f64>| {
        times.sort_unstable_by(f64::total_cmp);
        times[times.len() / 2]
    };
    times.iter_mut().map(median).collect()
}

/// How long something takes.
#[expect(clippy::disallowed_methods, reason = "a bench measures time")]
pub(crate) fn time(run: impl FnOnce()) -> Duration {
    let start = Instant::now();
    run();
    start.elapsed()
}

/// Whether times are asked for; under `cargo test` the benches only run once each.
pub(crate) fn is_measuring() -> bool {
    let mut measuring = false;
    for argument in std::env::args() {
        match argument.as_str() {
            "--bench" => measuring = true,
            "--test" | "--list" => return false,
            _ => {}
        }
    }
    measuring
}
