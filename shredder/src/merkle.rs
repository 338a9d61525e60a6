//! A BLAKE3 Merkle tree over the shards of an FEC set.
//!
//! ```text
//! leaf(shard) = BLAKE3 keyed with LEAF_KEY over the shard, zero-padded to a multiple of 64
//! node(l, r)  = BLAKE3 keyed with NODE_KEY over l ‖ r, each cut to 20 bytes and zero-padded to 32
//! ```
//!
//! Leaves and nodes are hashed under different keys, so that neither can pass for the other. The
//! padding is unambiguous because the signed header carries the shard's length. A level with an odd
//! number of nodes is filled up with a zero node. The tree over n leaves is ⌈log₂ n⌉ high: 6 for
//! the largest set, which has 64. The root is not cut.
//!
//! Nodes are cut to 20 bytes, as Solana's are, since each shred carries a path of them: of the
//! largest set 72 bytes less. Who wants to pass another shard off for a leader's has to find a
//! second preimage of 160 bits. A leader alone could look for a collision, with 2^80 hashes: then
//! one signature covers two shards at one place.
//!
//! Hashing 64 leaves side by side takes a seventh of the time of hashing them one by one, but
//! blake3 offers it only as a doc-hidden function. So the version of blake3 is pinned, the call is
//! behind the feature `hash-many`, and a test compares both ways.

/// A leaf or the root; nodes between them end with twelve zeros.
pub type Hash = [u8; 32];

/// Bytes of a node in a path.
pub const NODE_LEN: usize = 20;

/// A node as a path has it.
pub type PathNode = [u8; NODE_LEN];

/// The most leaves of a tree.
pub const MAX_LEAVES: usize = 64;

/// The longest shard that can be hashed: one BLAKE3 chunk.
pub(crate) const MAX_LEAF_LEN: usize = 1024;

/// The node that fills up a level of odd length.
const EMPTY: Hash = [0; 32];

const LEAF_KEY: Hash = *b"fragcast shred merkle leaf v1\0\0\0";
const NODE_KEY: Hash = *b"fragcast shred merkle node v2\0\0\0";

/// The height of a tree over `leaves` leaves, which is the number of nodes in a path.
pub const fn depth(leaves: usize) -> usize {
    leaves.next_power_of_two().trailing_zeros() as usize
}

/// The hash of one shard.
pub fn leaf(shard: &[u8]) -> Hash {
    let mut hasher = blake3::Hasher::new_keyed(&LEAF_KEY);
    hasher.update(shard);
    let padding = shard.len().next_multiple_of(64) - shard.len();
    hasher.update(&[0; 64][..padding]);
    hasher.finalize().into()
}

/// A node as it is hashed.
fn cut(mut hash: Hash) -> Hash {
    hash[NODE_LEN..].fill(0);
    hash
}

fn padded(node: &PathNode) -> Hash {
    let mut hash = EMPTY;
    hash[..NODE_LEN].copy_from_slice(node);
    hash
}

/// The hash over two nodes, which are cut; itself it is not.
fn node(left: &Hash, right: &Hash) -> Hash {
    let mut both = [0; 64];
    both[..32].copy_from_slice(left);
    both[32..].copy_from_slice(right);
    blake3::keyed_hash(&NODE_KEY, &both).into()
}

#[cfg(feature = "hash-many")]
mod many {
    //! Hashes leaves side by side through blake3's doc-hidden platform module.
    use blake3::IncrementCounter;
    use blake3::platform::{Platform, words_from_le_bytes_32};

    use super::Hash;

    // Flags of the BLAKE3 specification, section 2.1.
    const CHUNK_START: u8 = 1;
    const CHUNK_END: u8 = 2;
    const ROOT: u8 = 8;
    const KEYED_HASH: u8 = 16;

    fn run<const N: usize>(key: &Hash, inputs: &[&[u8; N]], out: &mut [Hash]) {
        Platform::detect().hash_many(
            inputs,
            &words_from_le_bytes_32(key),
            0,
            IncrementCounter::No,
            KEYED_HASH,
            CHUNK_START,
            CHUNK_END | ROOT,
            out.as_flattened_mut(),
        );
    }

    fn sized<const N: usize>(key: &Hash, padded: &[u8], out: &mut [Hash]) {
        let (chunks, _) = padded.as_chunks::<N>();
        let mut inputs: [&[u8; N]; super::MAX_LEAVES] = [&[0; N]; super::MAX_LEAVES];
        for (input, chunk) in inputs.iter_mut().zip(chunks) {
            *input = chunk;
        }
        run(key, &inputs[..out.len()], out);
    }

    /// Hashes `out.len()` (at most 64) inputs of `blocks` blocks of 64 bytes each.
    pub(super) fn hash(key: &Hash, padded: &[u8], blocks: usize, out: &mut [Hash]) -> bool {
        macro_rules! dispatch {
            ($($n:literal)*) => {
                match blocks {
                    $($n => sized::<{ $n * 64 }>(key, padded, out),)*
                    _ => return false,
                }
            };
        }
        dispatch!(1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16);
        true
    }
}

#[cfg(not(feature = "hash-many"))]
mod many {
    use super::Hash;

    pub(super) fn hash(_: &Hash, _: &[u8], _: usize, _: &mut [Hash]) -> bool {
        false
    }
}

/// Hashes shards of one length, side by side where that is possible.
///
/// # Panics
/// If the shards differ in length or exceed 1,024 bytes: callers pass parsed shreds, or
/// shards of one set.
pub fn leaves(shards: &[&[u8]], out: &mut Vec<Hash>) {
    out.clear();
    out.resize(shards.len(), EMPTY);
    let Some(first) = shards.first() else { return };
    let len = first.len();
    assert!(len <= MAX_LEAF_LEN && shards.iter().all(|s| s.len() == len), "shards of one length");
    let stride = len.next_multiple_of(64);
    if shards.len() == 1 || stride == 0 {
        out.iter_mut().zip(shards).for_each(|(hash, shard)| *hash = leaf(shard));
        return;
    }
    let mut padded = vec![0; stride * MAX_LEAVES.min(shards.len())];
    for (shards, out) in shards.chunks(MAX_LEAVES).zip(out.chunks_mut(MAX_LEAVES)) {
        for (slot, shard) in padded.chunks_exact_mut(stride).zip(shards) {
            slot[..len].copy_from_slice(shard);
        }
        if !many::hash(&LEAF_KEY, &padded, stride / 64, out) {
            out.iter_mut().zip(shards).for_each(|(hash, shard)| *hash = leaf(shard));
        }
    }
}

fn parents(level: &[Hash], out: &mut [Hash]) {
    if !many::hash(&NODE_KEY, level.as_flattened(), 1, out) {
        for (parent, pair) in out.iter_mut().zip(level.chunks_exact(2)) {
            *parent = node(&pair[0], &pair[1]);
        }
    }
}

/// A tree over at most 64 leaves. Takes about 4 kB.
#[derive(Clone)]
pub struct Tree {
    /// Level 0 are the leaves; level `depth` is the root. All are cut but the root.
    nodes: Vec<Hash>,
    depth: usize,
}

impl Tree {
    /// Builds the tree.
    ///
    /// # Panics
    /// Without leaves, or with more than [`MAX_LEAVES`].
    pub fn new(leaves: &[Hash]) -> Self {
        assert!((1..=MAX_LEAVES).contains(&leaves.len()), "1 to 64 leaves");
        let depth = depth(leaves.len());
        let width = 1usize << depth;
        let mut nodes = vec![EMPTY; 2 * width - 1];
        nodes[..leaves.len()].copy_from_slice(leaves);
        if depth > 0 {
            nodes[..leaves.len()].iter_mut().for_each(|leaf| *leaf = cut(*leaf));
        }
        let (mut start, mut level, mut used) = (0, width, leaves.len());
        while level > 1 {
            let (below, above) = nodes[start..].split_at_mut(level);
            used = used.div_ceil(2);
            // Only pairs with a used child are hashed; the rest stay empty.
            parents(&below[..2 * used], &mut above[..used]);
            if level > 2 {
                above[..used].iter_mut().for_each(|node| *node = cut(*node));
            }
            start += level;
            level /= 2;
        }
        Self { nodes, depth }
    }

    /// The root.
    pub fn root(&self) -> Hash {
        *self.nodes.last().expect("a tree has a root")
    }

    /// The path of leaf `index`: the sibling at each level, from the leaves up.
    pub fn path(&self, index: usize) -> impl Iterator<Item = &PathNode> {
        let width = 1usize << self.depth;
        (0..self.depth).scan((0, width, index), move |(start, level, index), _| {
            let sibling = self.nodes[*start + (*index ^ 1)].first_chunk();
            *start += *level;
            *level /= 2;
            *index /= 2;
            sibling
        })
    }
}

/// The root that `leaf` at `index` and its path lead to.
pub fn root_of(leaf: Hash, index: usize, path: &[PathNode]) -> Hash {
    let mut at = leaf;
    for (level, sibling) in path.iter().enumerate() {
        at = above(at, &padded(sibling), index >> level);
    }
    at
}

/// The hash over a node, yet to be cut, and its sibling, where the node's number is `place`.
fn above(at: Hash, sibling: &Hash, place: usize) -> Hash {
    let at = cut(at);
    if place & 1 == 0 { node(&at, sibling) } else { node(sibling, &at) }
}

/// The nodes of a tree whose path to the signed root has been checked.
///
/// The first shred of a set is hashed along its whole path. Later ones are hashed up to the first
/// known node, and the rest of their path is only compared. Takes about 4 kB.
#[derive(Clone)]
pub struct KnownNodes {
    nodes: Box<[Option<Hash>; 128]>,
    depth: usize,
}

impl KnownNodes {
    /// The root of a tree of `depth` levels is known, and nothing else.
    pub fn new(root: Hash, depth: usize) -> Self {
        debug_assert!(depth <= 6);
        let mut nodes = Box::new([None; 128]);
        nodes[1] = Some(root);
        Self { nodes, depth }
    }

    /// Whether `leaf` at `index` with `path` leads to the root; if so its nodes become known.
    ///
    /// Nodes are numbered as in a heap: the root is 1, the children of n are 2n and 2n + 1.
    pub fn check(&mut self, leaf: Hash, index: usize, path: &[PathNode]) -> bool {
        if path.len() != self.depth || index >= 1 << self.depth {
            return false;
        }
        let mut seen: [(usize, Hash); 14] = [(0, EMPTY); 14];
        let mut count = 0;
        let mut at = leaf;
        let mut slot = (1 << self.depth) + index;
        for (level, sibling) in path.iter().enumerate() {
            let node = cut(at);
            if let Some(known) = self.nodes[slot] {
                // Known nodes have known siblings all the way up: comparing is enough, and
                // needed, because the path is forwarded with the shred.
                let rest = (level..self.depth)
                    .all(|l| self.nodes[(slot >> (l - level)) ^ 1] == Some(padded(&path[l])));
                if known != node || !rest {
                    return false;
                }
                return self.learn(&seen[..count]);
            }
            let sibling = padded(sibling);
            seen[count] = (slot, node);
            seen[count + 1] = (slot ^ 1, sibling);
            count += 2;
            at = above(at, &sibling, slot);
            slot >>= 1;
        }
        self.nodes[1] == Some(at) && self.learn(&seen[..count])
    }

    fn learn(&mut self, seen: &[(usize, Hash)]) -> bool {
        for &(slot, hash) in seen {
            self.nodes[slot] = Some(hash);
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shards(n: usize, len: usize) -> Vec<Vec<u8>> {
        (0..n).map(|i| (0..len).map(|j| (i * 7 + j * 13) as u8).collect()).collect()
    }

    fn hashed(shards: &[Vec<u8>]) -> Vec<Hash> {
        let refs: Vec<&[u8]> = shards.iter().map(Vec::as_slice).collect();
        let mut out = Vec::new();
        leaves(&refs, &mut out);
        out
    }

    #[test]
    fn leaves_side_by_side_equal_leaves_one_by_one() {
        for n in [1, 2, 3, 31, 64, 65, 130] {
            for len in [1, 63, 64, 65, 200, 832, 847, 1024] {
                let shards = shards(n, len);
                let one_by_one: Vec<Hash> = shards.iter().map(|s| leaf(s)).collect();
                assert_eq!(hashed(&shards), one_by_one, "{n} shards of {len} bytes");
            }
        }
    }

    #[test]
    fn every_path_leads_to_the_root() {
        for n in 1..=64 {
            let leaves = hashed(&shards(n, 100));
            let tree = Tree::new(&leaves);
            let mut known = KnownNodes::new(tree.root(), depth(n));
            for (i, leaf) in leaves.iter().enumerate() {
                let path: Vec<PathNode> = tree.path(i).copied().collect();
                assert_eq!(path.len(), depth(n));
                assert_eq!(root_of(*leaf, i, &path), tree.root());
                assert!(known.check(*leaf, i, &path));
                assert!(known.check(*leaf, i, &path), "a second time");
            }
        }
    }

    #[test]
    fn nodes_equal_the_plain_construction() {
        fn plain(level: &[Hash]) -> Hash {
            if level.len() == 1 {
                return level[0];
            }
            let mut level: Vec<Hash> = level.iter().map(|node| cut(*node)).collect();
            if level.len() % 2 == 1 {
                level.push(EMPTY);
            }
            let up: Vec<Hash> = level.chunks(2).map(|p| node(&p[0], &p[1])).collect();
            plain(&up)
        }
        for n in 1..=64 {
            let leaves = hashed(&shards(n, 10));
            assert_eq!(Tree::new(&leaves).root(), plain(&leaves), "{n} leaves");
        }
    }

    #[test]
    fn known_nodes_refuse_any_changed_path_or_leaf() {
        let leaves = hashed(&shards(40, 100));
        let tree = Tree::new(&leaves);
        let mut known = KnownNodes::new(tree.root(), 6);
        for (i, leaf) in leaves.iter().enumerate().step_by(3) {
            let path: Vec<PathNode> = tree.path(i).copied().collect();
            // Before and after this leaf is known.
            for _ in 0..2 {
                for level in 0..6 {
                    let mut bad = path.clone();
                    bad[level][5] ^= 1;
                    assert!(!known.check(*leaf, i, &bad), "leaf {i}, level {level}");
                }
                let mut bad = *leaf;
                bad[0] ^= 1;
                assert!(!known.check(bad, i, &path));
                assert!(!known.check(*leaf, i ^ 1, &path));
                assert!(!known.check(*leaf, i, &path[1..]));
                assert!(known.check(*leaf, i, &path));
            }
        }
    }

    #[test]
    fn root_is_pinned() {
        let root = Tree::new(&hashed(&shards(48, 832))).root();
        assert_eq!(
            alloy_primitives::hex::encode(root),
            "9ce7feb0f1932eeaeaf832d840dbcc927f69046015c27ec561362e97e6539658"
        );
    }
}
