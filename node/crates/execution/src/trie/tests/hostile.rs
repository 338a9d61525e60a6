//! A source that lies: with wrong bytes, and with nodes of the right hash that no trie has.

use alloy_trie::nodes::{BranchNode, ExtensionNode, LeafNode, RlpNode, TrieNode};
use alloy_trie::{EMPTY_ROOT_HASH, TrieMask};
use proptest::collection::vec;
use proptest::prelude::*;

use super::*;

/// Nodes by hash, at whatever path.
#[derive(Default)]
struct ByHash(HashMap<B256, Bytes>);

impl ByHash {
    fn add(&mut self, rlp: Vec<u8>) -> B256 {
        let hash = keccak256(&rlp);
        self.0.insert(hash, rlp.into());
        hash
    }
}

impl TrieNodes for ByHash {
    fn node(&self, trie: TrieId, path: &Nibbles, hash: B256) -> Result<Bytes, SourceError> {
        match self.0.get(&hash) {
            Some(node) => Ok(node.clone()),
            None => NoNodes.node(trie, path, hash),
        }
    }
}

/// Does every operation; the results do not matter, as long as each returns.
fn poke(root: B256, nodes: &dyn TrieNodes, addresses: &[B256], slots: &[B256]) {
    let before = StateTrie::from_root(root);
    let note = |_: Result<(), SourceError>| ();
    let mut trie = before.clone();
    for round in 0..2 {
        for address in addresses {
            note(trie.account(*address, nodes).map(drop));
            note(trie.proof(*address, None, nodes).map(drop));
            note(trie.storage_root(*address, nodes).map(drop));
            for slot in slots {
                note(trie.slot(*address, *slot, nodes).map(drop));
                note(trie.proof(*address, Some(*slot), nodes).map(drop));
                note(trie.set_slot(*address, *slot, U256::from(round), nodes));
            }
            if round == 1 {
                note(trie.remove_account(*address, nodes));
            } else {
                note(trie.set_account(*address, &account(9), nodes));
            }
        }
        trie.root();
        StateTrie::diff(&before, &trie);
        trie.prune(3).held();
    }
}

#[test]
fn wrong_bytes_are_corrupt() {
    let model: Model = (0..24).map(|i| (key(i), (account(1), BTreeMap::new()))).collect();
    let mut store = Store::of(&build(&model));
    for node in store.0.values_mut() {
        *node = [node.as_ref(), &[0]].concat().into();
    }
    let trie = StateTrie::from_root(model_root(&model));
    for address in (0..24).map(key) {
        assert!(matches!(trie.account(address, &store), Err(SourceError::Corrupt(_))));
    }
    assert_eq!(trie.root(), model_root(&model));
}

fn account_rlp(storage_root: B256) -> Vec<u8> {
    let Account { nonce, balance, code_hash } = account(3);
    alloy_rlp::encode(TrieAccount { nonce, balance, storage_root, code_hash })
}

fn leaf(key: Nibbles, value: Vec<u8>) -> Vec<u8> {
    alloy_rlp::encode(TrieNode::Leaf(LeafNode::new(key, value)))
}

fn branch(children: Vec<RlpNode>) -> Vec<u8> {
    let mask = TrieMask::new(u16::MAX >> (16 - children.len()));
    alloy_rlp::encode(TrieNode::Branch(BranchNode::new(children, mask)))
}

#[test]
fn nodes_that_no_trie_has() {
    let key = Nibbles::unpack(B256::ZERO);
    let good = account_rlp(EMPTY_ROOT_HASH);
    let hash = RlpNode::word_rlp(&B256::repeat_byte(1));
    let extension =
        |key, child| alloy_rlp::encode(TrieNode::Extension(ExtensionNode::new(key, child)));
    // The flag of an even key has a low nibble.
    let mut second_form = leaf(key, good.clone());
    let flag = second_form.iter().position(|byte| *byte == 0x20).unwrap();
    second_form[flag] = 0x25;
    let small = leaf(key.slice(..5), vec![1]);
    // A list of 33 bytes is as long as a hash.
    let long = leaf(key.slice(..2), vec![7; 28]);
    assert_eq!(long.len(), 33);
    let cases = [
        ("no bytes", vec![]),
        ("an empty list", vec![0xc0]),
        ("a short key", leaf(key.slice(1..), good.clone())),
        ("an empty key", leaf(Nibbles::new(), good.clone())),
        ("not an account", leaf(key, alloy_rlp::encode(U256::ONE))),
        ("bytes behind the account", leaf(key, [&good[..], &[0]].concat())),
        ("bytes behind the node", [leaf(key, good.clone()), vec![0]].concat()),
        ("a second form of the key", second_form),
        ("no key in an extension", extension(Nibbles::new(), hash.clone())),
        ("an extension to a leaf's place", extension(key, hash.clone())),
        ("an extension to nothing", extension(key.slice(..3), RlpNode::from_rlp(&[0x80]))),
        ("a small leaf in the wrong place", branch(vec![hash.clone(), RlpNode::from_rlp(&small)])),
        ("a list as a hash", branch(vec![hash.clone(), RlpNode::from_raw(&long).unwrap()])),
        ("a branch of one", branch(vec![hash])),
    ];
    for (what, rlp) in cases {
        let mut nodes = ByHash::default();
        let trie = StateTrie::from_root(nodes.add(rlp));
        let found = trie.account(B256::ZERO, &nodes);
        assert!(matches!(found, Err(SourceError::Corrupt(_))), "{what}: {found:?}");
    }
    // In storage: zero, and a number with a leading zero.
    for value in [vec![0x80], vec![0x00], vec![0x82, 0x00, 0x01], vec![0xc0]] {
        let mut nodes = ByHash::default();
        let storage = nodes.add(leaf(key, value));
        let trie = StateTrie::from_root(nodes.add(leaf(key, account_rlp(storage))));
        assert!(trie.account(B256::ZERO, &nodes).is_ok());
        let found = trie.slot(B256::ZERO, B256::ZERO, &nodes);
        assert!(matches!(found, Err(SourceError::Corrupt(_))), "{found:?}");
    }
    // The same as it should be.
    let mut nodes = ByHash::default();
    let storage = nodes.add(leaf(key, alloy_rlp::encode(U256::from(7))));
    let trie = StateTrie::from_root(nodes.add(leaf(key, account_rlp(storage))));
    assert_eq!(trie.slot(B256::ZERO, B256::ZERO, &nodes), Ok(U256::from(7)));
}

#[derive(Debug, Clone)]
enum Shape {
    Leaf { key: usize, value: Vec<u8> },
    Account { key: usize, storage: usize },
    Extension { key: usize, child: usize },
    Branch(Vec<usize>),
}

fn shape() -> impl Strategy<Value = Shape> {
    let key = || prop_oneof![2 => 0usize..4, 1 => 0usize..=64, 1 => Just(63usize), 1 => Just(64)];
    prop_oneof![
        (key(), vec(any::<u8>(), 0..4)).prop_map(|(key, value)| Shape::Leaf { key, value }),
        (key(), 0usize..4).prop_map(|(key, storage)| Shape::Account { key, storage }),
        (key(), 0usize..4).prop_map(|(key, child)| Shape::Extension { key, child }),
        vec(0usize..4, 1..4).prop_map(Shape::Branch),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, ..ProptestConfig::default() })]

    #[test]
    fn any_bytes(bytes in vec(any::<u8>(), 0..80)) {
        let mut nodes = ByHash::default();
        let root = nodes.add(bytes);
        poke(root, &nodes, &[B256::ZERO, key(3)], &[key(0)]);
    }

    /// A node of a real trie, damaged, under the hash of the damaged bytes.
    #[test]
    fn damaged_nodes(at in any::<prop::sample::Index>(), byte in any::<u8>(), cut in 0usize..3) {
        let slots: BTreeMap<_, _> = (0..24).map(|i| (key(i), U256::from(i + 1))).collect();
        let model: Model = (0..24).map(|i| (key(i), (account(1), slots.clone()))).collect();
        let full = build(&model);
        let mut nodes = ByHash(Store::of(&full).0.into_values().map(|n| (keccak256(&n), n)).collect());
        let mut rlp = nodes.0[&full.root()].to_vec();
        let i = at.index(rlp.len());
        rlp[i] = byte;
        rlp.truncate(rlp.len() - cut);
        let root = nodes.add(rlp);
        let keys: Vec<_> = (0..24).map(key).collect();
        poke(root, &nodes, &keys, &keys[..2]);
    }

    /// Nodes of any shape over each other, with keys of any length along one way.
    #[test]
    fn any_shapes(shapes in vec(shape(), 1..8)) {
        let way = Nibbles::unpack(B256::ZERO);
        let mut nodes = ByHash::default();
        let mut made: Vec<Vec<u8>> = vec![leaf(way, account_rlp(EMPTY_ROOT_HASH))];
        for shape in &shapes {
            let below = |back: usize| &made[made.len().saturating_sub(1 + back)];
            let rlp = match shape {
                Shape::Leaf { key, value } => leaf(way.slice(..*key), value.clone()),
                Shape::Account { key, storage } => {
                    leaf(way.slice(..*key), account_rlp(keccak256(below(*storage))))
                }
                Shape::Extension { key, child } => alloy_rlp::encode(TrieNode::Extension(
                    ExtensionNode::new(way.slice(..*key), RlpNode::from_rlp(below(*child))),
                )),
                Shape::Branch(children) => {
                    branch(children.iter().map(|child| RlpNode::from_rlp(below(*child))).collect())
                }
            };
            nodes.add(rlp.clone());
            made.push(rlp);
        }
        let mut near = B256::ZERO;
        near.0[0] = 0x10;
        for rlp in &made {
            poke(keccak256(rlp), &nodes, &[B256::ZERO, near], &[B256::ZERO, near]);
        }
    }
}
