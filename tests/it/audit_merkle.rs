//! The Merkle tree: published vectors, agreement with an independent crate, changed proofs, pruned records.

use std::cell::RefCell;
use std::convert::Infallible;
use std::fmt;

use ct_merkle::mem_backed_tree::MemoryBackedTree;
use portcullis::audit::merkle::{
    Hash, MerkleTree, NoLeaves, ProofError, TILE_LEAVES, TileLeaves, TreeError, TreeHead, VerifyError, empty_root,
    leaf_hash, verify_consistency, verify_inclusion,
};
use proptest::prelude::*;
use sha2::Sha256;

use crate::campaign::rounds;

const TILE: u64 = TILE_LEAVES as u64;

fn hash(hex: &str) -> Hash {
    let octet = |at: usize| u8::from_str_radix(hex.get(2 * at..2 * at + 2).unwrap(), 16).unwrap();
    assert_eq!(hex.len(), 2 * Hash::BYTES);
    Hash::new(std::array::from_fn(octet))
}

fn hashes(hexes: &[&str]) -> Vec<Hash> {
    hexes.iter().map(|hex| hash(hex)).collect()
}

/// A log of records, some of the oldest of which are no longer kept.
struct Log {
    records: Vec<Vec<u8>>,
    leaves: Vec<Hash>,
    tree: MerkleTree,
    tiles_pruned: u64,
    /// Tiles that were read since it was last emptied.
    read: RefCell<Vec<u64>>,
}

impl Log {
    fn of(records: Vec<Vec<u8>>) -> Self {
        let leaves: Vec<Hash> = records.iter().map(|record| leaf_hash(&[record])).collect();
        let mut tree = MerkleTree::new();
        for &leaf in &leaves {
            tree.append(leaf);
        }
        Self { records, leaves, tree, tiles_pruned: 0, read: RefCell::default() }
    }

    /// A log of `size` records that differ.
    fn of_size(size: usize) -> Self {
        Self::of((0..size).map(|number| format!("record {number}").into_bytes()).collect())
    }

    fn head_at(&self, size: u64) -> TreeHead {
        TreeHead { size, root: self.tree.root_at(size, self).unwrap() }
    }
}

impl TileLeaves for Log {
    type Error = Infallible;

    fn leaves(&self, tile: u64) -> Result<Option<Vec<Hash>>, Infallible> {
        self.read.borrow_mut().push(tile);
        let first = usize::try_from(tile).unwrap() * TILE_LEAVES;
        Ok((tile >= self.tiles_pruned).then(|| self.leaves[first..first + TILE_LEAVES].to_vec()))
    }
}

/// The tree as RFC 6962 §2.1 defines it, word for word.
mod definition {
    use portcullis::audit::merkle::{Hash, empty_root, node_hash};

    /// The largest power of two below `size`.
    fn split(size: usize) -> usize {
        size.next_power_of_two() / 2
    }

    pub(super) fn root(leaves: &[Hash]) -> Hash {
        match leaves {
            [] => empty_root(),
            [leaf] => *leaf,
            leaves => {
                let (left, right) = leaves.split_at(split(leaves.len()));
                node_hash(root(left), root(right))
            }
        }
    }

    pub(super) fn path(index: usize, leaves: &[Hash]) -> Vec<Hash> {
        if leaves.len() == 1 {
            return Vec::new();
        }
        let (left, right) = leaves.split_at(split(leaves.len()));
        let (mut path, sibling) = match index.checked_sub(left.len()) {
            None => (path(index, left), root(right)),
            Some(index) => (path(index, right), root(left)),
        };
        path.push(sibling);
        path
    }

    pub(super) fn proof(first: usize, leaves: &[Hash], whole: bool) -> Vec<Hash> {
        if first == leaves.len() {
            return if whole { Vec::new() } else { vec![root(leaves)] };
        }
        let (left, right) = leaves.split_at(split(leaves.len()));
        let (mut proof, sibling) = match first.checked_sub(left.len()) {
            None | Some(0) => (proof(first, left, whole), root(right)),
            Some(first) => (proof(first, right, false), root(left)),
        };
        proof.push(sibling);
        proof
    }
}

/// The leaves that the test suites of Certificate Transparency share.
fn published_log() -> Log {
    let leaves: [&[u8]; 8] = [
        b"",
        b"\x00",
        b"\x10",
        b"\x20\x21",
        b"\x30\x31",
        b"\x40\x41\x42\x43",
        b"\x50\x51\x52\x53\x54\x55\x56\x57",
        b"\x60\x61\x62\x63\x64\x65\x66\x67\x68\x69\x6a\x6b\x6c\x6d\x6e\x6f",
    ];
    Log::of(leaves.map(<[u8]>::to_vec).to_vec())
}

/// Their roots for 1 to 8 leaves.
const PUBLISHED_ROOTS: [&str; 8] = [
    "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
    "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
    "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
    "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
];

#[test]
fn roots_are_those_published_for_rfc_6962() {
    let empty = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
    assert_eq!(MerkleTree::new().head(), TreeHead { size: 0, root: hash(empty) });
    let log = published_log();
    let mut tree = MerkleTree::new();
    for (leaf, published) in log.leaves.iter().zip(PUBLISHED_ROOTS) {
        tree.append(*leaf);
        assert_eq!(tree.root().to_string(), published);
        assert_eq!(log.tree.root_at(tree.size(), &NoLeaves), Ok(hash(published)));
    }
    assert_eq!(log.tree.root_at(0, &NoLeaves), Ok(hash(empty)));
}

#[test]
fn inclusion_proofs_are_those_published_for_rfc_6962() {
    let published: [(u64, u64, &[&str]); 6] = [
        (0, 1, &[]),
        (1, 2, &["6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d"]),
        (
            0,
            8,
            &[
                "96a296d224f285c67bee93c30f8a309157f0daa35dc5b87e410b78630a09cfc7",
                "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
                "6b47aaf29ee3c2af9af889bc1fb9254dabd31177f16232dd6aab035ca39bf6e4",
            ],
        ),
        (
            5,
            8,
            &[
                "bc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b",
                "ca854ea128ed050b41b35ffc1b87b8eb2bde461e9e3b5596ece6b9d5975a0ae0",
                "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
            ],
        ),
        (2, 3, &["fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125"]),
        (
            1,
            5,
            &[
                "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
                "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
                "bc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b",
            ],
        ),
    ];
    let log = published_log();
    for (index, size, path) in published {
        let path = hashes(path);
        assert_eq!(log.tree.inclusion_proof(index, size, &NoLeaves).as_ref(), Ok(&path));
        let at = usize::try_from(index).unwrap();
        let head = TreeHead { size, root: hash(PUBLISHED_ROOTS[usize::try_from(size).unwrap() - 1]) };
        assert_eq!(verify_inclusion(log.leaves[at], index, head, &path), Ok(()));
    }
}

#[test]
fn consistency_proofs_are_those_published_for_rfc_6962() {
    let published: [(u64, u64, &[&str]); 4] = [
        (1, 1, &[]),
        (
            1,
            8,
            &[
                "96a296d224f285c67bee93c30f8a309157f0daa35dc5b87e410b78630a09cfc7",
                "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
                "6b47aaf29ee3c2af9af889bc1fb9254dabd31177f16232dd6aab035ca39bf6e4",
            ],
        ),
        (
            6,
            8,
            &[
                "0ebc5d3437fbe2db158b9f126a1d118e308181031d0a949f8dededebc558ef6a",
                "ca854ea128ed050b41b35ffc1b87b8eb2bde461e9e3b5596ece6b9d5975a0ae0",
                "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
            ],
        ),
        (
            2,
            5,
            &[
                "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
                "bc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b",
            ],
        ),
    ];
    let log = published_log();
    let head = |size: u64| TreeHead { size, root: hash(PUBLISHED_ROOTS[usize::try_from(size).unwrap() - 1]) };
    for (first, second, path) in published {
        let path = hashes(path);
        assert_eq!(log.tree.consistency_proof(first, second, &NoLeaves).as_ref(), Ok(&path));
        assert_eq!(verify_consistency(head(first), head(second), &path), Ok(()));
    }
}

/// A proof that a log of 2013 gave for a real certificate, from the tests of Certificate Transparency.
#[test]
fn a_proof_of_a_real_log_holds() {
    let path = hashes(&[
        "1a208aeebcd1b39fe2de247ee8db9454e1e93a312d206b87f6ca9cc6ec6f1ddd",
        "0a1b78b383f580856f433c01a5741e160d451c185910027f6cc9f828687a40c4",
        "3d1745789bc63f2da15850de1c12a5bf46ed81e1cc90f086148b1662e79aab3d",
        "9095b61e14d8990acf390905621e62b1714fb8e399fbb71de5510e0aef45affe",
        "0a332b91b8fab564e6afd1dd452449e04619b18accc0ff9aa8393cd4928451f2",
        "2336f0181d264aed6d8f3a6507ca14a8d3b3c3a23791ac263e845d208c1ee330",
        "b4ce56e300590500360c146c6452edbede25d4ed83919278749ee5dbe178e048",
        "933f6ddc848ea562e4f9c5cfb5f176941301dad0c6fdb9d1fbbe34fac1be6966",
        "b95a6222958a86f74c030be27c44f57dbe313e5e7c7f4ffb98bcbd3a03bb52f2",
        "daeeb3ce5923defd0faeb8e0c210b753b85b809445d7d3d3cd537a9aabaa9c45",
        "7fadd0a13e9138a2aa6c3fdec4e2275af233b94812784f66bcca9aa8e989f2bc",
        "1864e6ba3e32878610546539734fb5eeae2529991f130c575c73a7e25a2a7c56",
        "12842d1202b1dc6828a17ab253c02e7ce9409b5192430feba44189f39cc02d66",
        "29af64b16fa3053c13d02ac63aa75b23aa468506e44c3a2315edc85d2dc22b11",
        "b527b99934a0bd9edd154e449b0502e2c499bba783f3bc3dfe23364b6b532009",
        "4584db8ae8e351ace08e01f306378a92bfd43611714814f3d834a2842d69faa8",
        "86a9a41573b0d6e4292f01e93243d6cc65b30f06606fc6fa57390e7e90ed580f",
        "a88b98fbe84d4c6aae8db9d1605dfac059d9f03fe0fcb0d5dff1295dacba09e6",
        "06326dc617a6d1f7021dc536026dbfd5fffc6f7c5531d48ef6ccd1ed1569f2a1",
        "f41fe8fdc3a2e4e8345e30216e7ebecffee26ff266eeced208a6c2a3cf08f960",
        "40cf5bde8abb76983f3e98ba97aa36240402975674e120f234b3448911090f8d",
        "b3222dc8658538079883d980d7fdc2bef9285344ea34338968f736b04aeb387a",
    ]);
    let leaf = hash("7a395c866d5ecdb0cccb623e011dbc392cd348d1d1d72776174e127a24b09c78");
    let root = hash("78316a05c9bcf14a3a4548f5b854a9adfcd46a4c034401b3ce7eb7ac2f1d0ecb");
    let head = TreeHead { size: 3_630_887, root };
    assert_eq!(verify_inclusion(leaf, 848_049, head, &path), Ok(()));
    assert!(verify_inclusion(leaf, 848_050, head, &path).is_err());
}

#[test]
fn small_trees_and_all_their_proofs_are_as_defined() {
    let log = Log::of_size(40);
    for size in 0..=40_usize {
        let head = log.head_at(size as u64);
        assert_eq!(head.root, definition::root(&log.leaves[..size]));
        for index in 0..size {
            let path = log.tree.inclusion_proof(index as u64, head.size, &log).unwrap();
            assert_eq!(path, definition::path(index, &log.leaves[..size]));
            assert_eq!(verify_inclusion(log.leaves[index], index as u64, head, &path), Ok(()));
        }
        for first in 1..=size {
            let path = log.tree.consistency_proof(first as u64, head.size, &log).unwrap();
            assert_eq!(path, definition::proof(first, &log.leaves[..size], true));
            assert_eq!(verify_consistency(log.head_at(first as u64), head, &path), Ok(()));
        }
    }
    assert!(log.read.borrow().is_empty());
}

/// Compares with `ct-merkle`: the root, and the proofs for some indexes and older sizes.
fn compare(log: &Log, other: &MemoryBackedTree<Sha256, Vec<u8>>, indexes: &[u64], firsts: &[u64]) {
    let head = log.head_at(other.len());
    assert_eq!(head.root.as_bytes(), other.root().as_bytes().as_slice(), "{}", head.size);
    for &index in indexes.iter().filter(|&&index| index < head.size) {
        let at = usize::try_from(index).unwrap();
        let path = log.tree.inclusion_proof(index, head.size, log).unwrap();
        assert_eq!(bytes(&path), other.prove_inclusion(at).as_bytes(), "{index} in {}", head.size);
        assert_eq!(verify_inclusion(log.leaves[at], index, head, &path), Ok(()));
    }
    for &first in firsts.iter().filter(|&&first| 0 < first && first < head.size) {
        let added = usize::try_from(head.size - first).unwrap();
        let path = log.tree.consistency_proof(first, head.size, log).unwrap();
        assert_eq!(bytes(&path), other.prove_consistency(added).as_bytes(), "{first} to {}", head.size);
        assert_eq!(verify_consistency(log.head_at(first), head, &path), Ok(()));
    }
}

fn bytes(path: &[Hash]) -> Vec<u8> {
    path.iter().flat_map(|hash| *hash.as_bytes()).collect()
}

/// `ct-merkle` grows record by record; the log is asked for every size in `sizes` as an older size of itself.
fn compare_at(log: &Log, sizes: &[u64], indexes: &[u64]) {
    let mut other = MemoryBackedTree::new();
    for record in &log.records {
        other.push(record.clone());
        if sizes.contains(&other.len()) {
            compare(log, &other, indexes, sizes);
        }
    }
}

#[test]
fn roots_and_proofs_agree_with_ct_merkle_around_tiles() {
    let sizes = [1, 2, 255, 256, 257, 511, 512, 513, 640, 767, 768, 769, 1_023, 1_024, 1_025, 1_300];
    compare_at(&Log::of_size(1_300), &sizes, &[0, 1, 127, 128, 254, 255, 256, 257, 511, 512, 700, 1_023, 1_024, 1_299]);
}

#[test]
fn roots_and_proofs_agree_with_ct_merkle_around_a_segment_file() {
    let sizes = [65_279, 65_280, 65_535, 65_536, 65_537];
    compare_at(&Log::of_size(65_537), &sizes, &[0, 255, 256, 32_767, 32_768, 65_279, 65_535, 65_536]);
}

#[test]
fn roots_and_proofs_agree_with_ct_merkle_around_two_segment_files() {
    let sizes = [65_537, 130_815, 131_071, 131_072, 131_073, 131_329];
    compare_at(&Log::of_size(131_329), &sizes, &[0, 65_535, 65_536, 130_815, 131_071, 131_072, 131_328]);
}

/// Whoever proves something works with a copy, while the log goes on.
#[test]
fn a_copy_of_a_tree_stays_what_it_was_while_the_tree_grows() {
    let root = |number: u64| leaf_hash(&[&number.to_le_bytes()]);
    let tree_of = |tiles: u64| MerkleTree::from_tile_roots((0..tiles).map(root), Vec::new()).unwrap();
    // Around every number of tiles at which a level of the tree begins another piece of memory.
    for tiles in [1, 255, 256, 511, 512] {
        let mut tree = tree_of(tiles);
        let copy = tree.clone();
        for number in 0..257 * 256 {
            tree.append(root(number));
        }
        assert_eq!((copy.size(), copy.root()), (tiles * 256, tree_of(tiles).root()));
        assert_eq!(tree.root_at(tiles * 256, &NoLeaves).unwrap(), copy.root());
        assert_eq!((copy.tile_root(0), copy.tile_root(usize::try_from(tiles).unwrap())), (Some(root(0)), None));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(rounds(8, 24)))]

    #[test]
    fn roots_and_proofs_agree_with_ct_merkle_for_any_size(
        size in 1_usize..3_000,
        picks in prop::collection::vec(any::<prop::sample::Index>(), 12),
    ) {
        let log = Log::of_size(size);
        let picks: Vec<u64> = picks.iter().map(|pick| pick.index(size) as u64).collect();
        let mut other = MemoryBackedTree::new();
        log.records.iter().for_each(|record| other.push(record.clone()));
        compare(&log, &other, &picks, &picks);
        prop_assert_eq!(log.tree.root(), log.head_at(size as u64).root);
    }

    #[test]
    fn a_tree_goes_on_where_it_was_stored(size in 0_usize..1_500, more in 0_usize..600) {
        let log = Log::of_size(size + more);
        let mut before = MerkleTree::new();
        let filled: Vec<Hash> = log.leaves[..size].iter().filter_map(|&leaf| before.append(leaf)).collect();
        let roots: Vec<_> = (0..).map_while(|tile| before.tile_root(tile)).collect();
        prop_assert_eq!(&filled, &roots);
        let mut tree = MerkleTree::from_tile_roots(filled, before.partial_leaves().to_vec()).unwrap();
        prop_assert_eq!(&tree, &before);
        for &leaf in &log.leaves[size..] {
            tree.append(leaf);
        }
        prop_assert_eq!(&tree, &log.tree);
    }

    #[test]
    fn an_inclusion_proof_with_any_bit_flipped_fails(
        size in 1_u64..2_000, index in any::<prop::sample::Index>(), at in any::<prop::sample::Index>(), bit in 0_u8..8,
    ) {
        let log = Log::of_size(2_000);
        let index = index.index(usize::try_from(size).unwrap());
        let head = log.head_at(size);
        let path = log.tree.inclusion_proof(index as u64, size, &log).unwrap();
        let leaf = log.leaves[index];
        prop_assert_eq!(verify_inclusion(leaf, index as u64, head, &path), Ok(()));

        let mut all = [bytes(&[leaf, head.root]), bytes(&path)].concat();
        let flipped = at.index(all.len());
        all[flipped] ^= 1 << bit;
        let all: Vec<Hash> = all.chunks(32).map(|chunk| Hash::try_from(chunk).unwrap()).collect();
        let changed = TreeHead { size, root: all[1] };
        let failed = matches!(verify_inclusion(all[0], index as u64, changed, &all[2..]), Err(VerifyError::Root { .. }));
        prop_assert!(failed);

        for other in [index.wrapping_sub(1), index + 1, index ^ 256] {
            prop_assert!(verify_inclusion(leaf, other as u64, head, &path).is_err());
        }
        prop_assert!(verify_inclusion(leaf, index as u64, head, &[path.as_slice(), &[leaf]].concat()).is_err());
        if let Some((_, shorter)) = path.split_last() {
            prop_assert!(verify_inclusion(leaf, index as u64, head, shorter).is_err());
        }
    }

    #[test]
    fn a_consistency_proof_with_any_bit_flipped_fails(
        second in 2_u64..2_000, first in any::<prop::sample::Index>(), at in any::<prop::sample::Index>(), bit in 0_u8..8,
    ) {
        let log = Log::of_size(2_000);
        let first = 1 + first.index(usize::try_from(second - 1).unwrap()) as u64;
        let heads = (log.head_at(first), log.head_at(second));
        let path = log.tree.consistency_proof(first, second, &log).unwrap();
        prop_assert_eq!(verify_consistency(heads.0, heads.1, &path), Ok(()));

        let mut all = [bytes(&[heads.0.root, heads.1.root]), bytes(&path)].concat();
        let flipped = at.index(all.len());
        all[flipped] ^= 1 << bit;
        let all: Vec<Hash> = all.chunks(32).map(|chunk| Hash::try_from(chunk).unwrap()).collect();
        let changed = (TreeHead { size: first, root: all[0] }, TreeHead { size: second, root: all[1] });
        let failed = matches!(
            verify_consistency(changed.0, changed.1, &all[2..]),
            Err(VerifyError::FirstRoot { .. } | VerifyError::SecondRoot { .. })
        );
        prop_assert!(failed);

        let longer = [path.as_slice(), &[heads.0.root]].concat();
        prop_assert!(verify_consistency(heads.0, heads.1, &longer).is_err());
        if let Some((_, shorter)) = path.split_last() {
            prop_assert!(verify_consistency(heads.0, heads.1, shorter).is_err());
        }
        prop_assert!(verify_consistency(heads.1, heads.0, &path).is_err());
    }

    #[test]
    fn verifying_takes_anything(
        sizes in any::<(u64, u64)>(),
        roots in any::<([u8; 32], [u8; 32])>(),
        path in prop::collection::vec(any::<[u8; 32]>().prop_map(Hash::new), 0..70),
    ) {
        let first = TreeHead { size: sizes.0, root: Hash::new(roots.0) };
        let second = TreeHead { size: sizes.1, root: Hash::new(roots.1) };
        prop_assert!(verify_inclusion(first.root, sizes.0, second, &path).is_err());
        prop_assert!(verify_consistency(first, second, &path).is_err());
    }

    /// What can be proven once the oldest tiles are gone, exactly.
    #[test]
    fn after_pruning_everything_is_provable_that_needs_no_pruned_tile(
        tiles_pruned in 1_u64..5,
        sizes in prop::collection::vec((0_u64..8, prop_oneof![Just(0_u64), Just(1), 0_u64..256]), 4),
    ) {
        let mut log = Log::of_size(7 * TILE_LEAVES + 100);
        let sizes: Vec<u64> = sizes.iter().map(|(tile, rest)| (tile * TILE + rest).min(log.tree.size())).collect();
        let heads: Vec<TreeHead> = sizes.iter().map(|&size| log.head_at(size)).collect();
        log.tiles_pruned = tiles_pruned;
        let cuts_pruned = |size: u64| !size.is_multiple_of(TILE) && size / TILE < tiles_pruned;

        for first in &heads {
            let root = log.tree.root_at(first.size, &log);
            prop_assert_eq!(root.is_err(), cuts_pruned(first.size));
            for second in heads.iter().filter(|second| first.size <= second.size) {
                let empty = first.size == 0 || first.size == second.size;
                match log.tree.consistency_proof(first.size, second.size, &log) {
                    Ok(path) => {
                        prop_assert!(empty || !cuts_pruned(first.size) && !cuts_pruned(second.size));
                        prop_assert_eq!(verify_consistency(*first, *second, &path), Ok(()));
                    }
                    Err(error) => {
                        prop_assert!(!empty && (cuts_pruned(first.size) || cuts_pruned(second.size)));
                        let pruned = matches!(error, ProofError::Pruned { .. });
                        prop_assert!(pruned);
                    }
                }
            }
            for index in sizes.iter().copied().filter(|&index| index < first.size) {
                let alone = index + 1 == first.size && index % TILE == 0;
                match log.tree.inclusion_proof(index, first.size, &log) {
                    Ok(path) => {
                        prop_assert!(alone || index / TILE >= tiles_pruned);
                        let leaf = log.leaves[usize::try_from(index).unwrap()];
                        prop_assert_eq!(verify_inclusion(leaf, index, *first, &path), Ok(()));
                    }
                    Err(_) => prop_assert!(!alone && index / TILE < tiles_pruned),
                }
            }
        }
    }
}

#[test]
fn a_pruned_tile_is_named() {
    let mut log = Log::of_size(1_000);
    log.tiles_pruned = 2;
    let error = log.tree.inclusion_proof(300, 1_000, &log).unwrap_err();
    assert_eq!(error, ProofError::Pruned { first_sequence: 257, last_sequence: 512 });
    assert_eq!(
        error.to_string(),
        "records 257 to 512 are no longer kept: ask about records that are, and for tree sizes among them or that are \
         multiples of 256"
    );
    assert_eq!(log.tree.inclusion_proof(512, 1_000, &log).map(|path| path.len()), Ok(10));
}

#[test]
fn a_proof_reads_two_tiles_at_most_and_each_once() {
    let log = Log::of_size(3_000);
    let tiles_read = |proof: Result<Vec<Hash>, ProofError<Infallible>>| {
        proof.unwrap();
        log.read.take()
    };
    assert_eq!(tiles_read(log.tree.inclusion_proof(300, 2_000, &log)), [7, 1]);
    assert_eq!(tiles_read(log.tree.inclusion_proof(300, 500, &log)), [1]);
    assert_eq!(tiles_read(log.tree.inclusion_proof(300, 2_048, &log)), [1]);
    assert_eq!(tiles_read(log.tree.inclusion_proof(300, 3_000, &log)), [1]);
    assert_eq!(tiles_read(log.tree.inclusion_proof(2_999, 3_000, &log)), Vec::<u64>::new());
    assert_eq!(tiles_read(log.tree.consistency_proof(300, 2_000, &log)), [7, 1]);
    assert_eq!(tiles_read(log.tree.consistency_proof(256, 2_816, &log)), Vec::<u64>::new());
    assert_eq!(tiles_read(log.tree.consistency_proof(2_048, 3_000, &log)), Vec::<u64>::new());
}

#[test]
fn records_that_were_changed_make_no_proof() {
    let mut log = Log::of_size(600);
    log.leaves[5] = log.leaves[6];
    let mismatch = ProofError::Mismatch { first_sequence: 1, last_sequence: 256 };
    assert_eq!(log.tree.inclusion_proof(9, 600, &log), Err(mismatch.clone()));
    assert_eq!(log.tree.consistency_proof(9, 600, &log), Err(mismatch.clone()));
    assert_eq!(log.tree.root_at(9, &log), Err(mismatch));
}

#[test]
fn a_source_that_answers_short_or_not_at_all_is_reported() {
    #[derive(Debug)]
    struct Unreadable;
    impl fmt::Display for Unreadable {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("disk on fire")
        }
    }
    impl std::error::Error for Unreadable {}
    struct Failing(bool);
    impl TileLeaves for Failing {
        type Error = Unreadable;
        fn leaves(&self, _tile: u64) -> Result<Option<Vec<Hash>>, Unreadable> {
            if self.0 { Err(Unreadable) } else { Ok(Some(vec![empty_root(); 255])) }
        }
    }
    let log = Log::of_size(300);
    let short = log.tree.root_at(10, &Failing(false)).unwrap_err();
    assert!(matches!(short, ProofError::Mismatch { first_sequence: 1, last_sequence: 256 }));
    let error = log.tree.root_at(10, &Failing(true)).unwrap_err();
    assert_eq!(error.to_string(), "cannot read records 1 to 256");
    assert_eq!(std::error::Error::source(&error).unwrap().to_string(), "disk on fire");
}

#[test]
fn sizes_and_indexes_beyond_the_log_are_refused() {
    let log = Log::of_size(300);
    let beyond = ProofError::SizeBeyondLog { size: 301, available: 300 };
    assert_eq!(log.tree.root_at(301, &log), Err(beyond.clone()));
    assert_eq!(log.tree.inclusion_proof(0, 301, &log), Err(beyond.clone()));
    assert_eq!(log.tree.consistency_proof(1, 301, &log), Err(beyond));
    let index = ProofError::IndexBeyondTree { index: 20, size: 20 };
    assert_eq!(log.tree.inclusion_proof(20, 20, &log), Err(index));
    assert_eq!(log.tree.inclusion_proof(0, 0, &log), Err(ProofError::IndexBeyondTree { index: 0, size: 0 }));
    let swapped = ProofError::SizesSwapped { first: 30, second: 20 };
    assert_eq!(log.tree.consistency_proof(30, 20, &log), Err(swapped));
    assert_eq!(MerkleTree::from_tile_roots([], vec![empty_root(); 256]), Err(TreeError::PartialTooLong(256)));
}

#[test]
fn every_log_continues_the_empty_one_and_itself_only_without_a_proof() {
    let log = Log::of_size(20);
    let (empty, ten, twenty) = (log.head_at(0), log.head_at(10), log.head_at(20));
    assert_eq!(log.tree.consistency_proof(0, 20, &log), Ok(Vec::new()));
    assert_eq!(verify_consistency(empty, twenty, &[]), Ok(()));
    assert_eq!(verify_consistency(empty, empty, &[]), Ok(()));
    assert_eq!(verify_consistency(ten, ten, &[]), Ok(()));
    assert_eq!(verify_consistency(empty, twenty, &[ten.root]), Err(VerifyError::PathLength(1)));
    assert_eq!(verify_consistency(ten, ten, &[ten.root]), Err(VerifyError::PathLength(1)));
    assert_eq!(verify_consistency(ten, twenty, &[]), Err(VerifyError::PathLength(0)));
    let forged = TreeHead { size: 0, root: ten.root };
    assert!(matches!(verify_consistency(forged, twenty, &[]), Err(VerifyError::FirstRoot { .. })));
    let forged = TreeHead { size: 10, root: twenty.root };
    assert!(matches!(verify_consistency(ten, forged, &[]), Err(VerifyError::SecondRoot { .. })));
}
