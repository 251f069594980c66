use super::*;
use crate::tree::split::Range;
use proptest::prelude::*;

/// The definition of RFC 6962, word for word and slow.
fn naive_root(leaves: &[Vec<u8>]) -> TreeHash {
    match leaves {
        [] => TreeHash::empty(),
        [only] => TreeHash::leaf(only),
        _ => {
            let (left, right) = leaves.split_at(naive_split(leaves.len()));
            TreeHash::node(&naive_root(left), &naive_root(right))
        }
    }
}

fn naive_split(size: usize) -> usize {
    let mut k = 1;
    while k * 2 < size {
        k *= 2;
    }
    k
}

fn naive_path(index: usize, leaves: &[Vec<u8>]) -> Vec<TreeHash> {
    if leaves.len() <= 1 {
        return Vec::new();
    }
    let (left, right) = leaves.split_at(naive_split(leaves.len()));
    let (mut path, sibling) = if index < left.len() {
        (naive_path(index, left), naive_root(right))
    } else {
        (naive_path(index - left.len(), right), naive_root(left))
    };
    path.push(sibling);
    path
}

fn naive_consistency(old: usize, leaves: &[Vec<u8>], whole: bool) -> Vec<TreeHash> {
    if old == leaves.len() {
        return if whole { Vec::new() } else { vec![naive_root(leaves)] };
    }
    let (left, right) = leaves.split_at(naive_split(leaves.len()));
    if old <= left.len() {
        let mut proof = naive_consistency(old, left, whole);
        proof.push(naive_root(right));
        proof
    } else {
        let mut proof = naive_consistency(old - left.len(), right, false);
        proof.push(naive_root(left));
        proof
    }
}

fn leaves(count: usize) -> Vec<Vec<u8>> {
    (0..count).map(|n| format!("leaf {n}").into_bytes()).collect()
}

fn grown(leaves: &[Vec<u8>]) -> (Edge, BTreeMap<NodeId, TreeHash>) {
    let mut nodes = BTreeMap::new();
    let mut edge = Edge::default();
    for leaf in leaves {
        edge.push(TreeHash::leaf(leaf), |id, hash| {
            nodes.insert(id, hash);
        });
    }
    (edge, nodes)
}

/// Leaves and roots that certificate transparency implementations share since RFC 6962.
#[test]
fn the_published_vectors_hold() {
    let data: [&[u8]; 8] = [
        b"",
        b"\x00",
        b"\x10",
        b"\x20\x21",
        b"\x30\x31",
        b"\x40\x41\x42\x43",
        b"\x50\x51\x52\x53\x54\x55\x56\x57",
        b"\x60\x61\x62\x63\x64\x65\x66\x67\x68\x69\x6a\x6b\x6c\x6d\x6e\x6f",
    ];
    let roots = [
        "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
        "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
        "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
        "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
        "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
        "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
        "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
        "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
    ];
    let hex = |hash: &TreeHash| hash.0.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    let empty = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
    assert_eq!(hex(&Edge::default().root()), empty);
    let mut edge = Edge::default();
    let mut nodes = BTreeMap::new();
    for (leaf, root) in data.iter().zip(roots) {
        edge.push(TreeHash::leaf(leaf), |id, hash| {
            nodes.insert(id, hash);
        });
        assert_eq!(hex(&edge.root()), root);
    }
    let path: Vec<_> = inclusion_proof(&nodes, 0, 8).unwrap().iter().map(hex).collect();
    let known = [
        "96a296d224f285c67bee93c30f8a309157f0daa35dc5b87e410b78630a09cfc7",
        "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
        "6b47aaf29ee3c2af9af889bc1fb9254dabd31177f16232dd6aab035ca39bf6e4",
    ];
    assert_eq!(path, known);
    let proof: Vec<_> = consistency_proof(&nodes, 6, 8).unwrap().iter().map(hex).collect();
    let known = [
        "0ebc5d3437fbe2db158b9f126a1d118e308181031d0a949f8dededebc558ef6a",
        "ca854ea128ed050b41b35ffc1b87b8eb2bde461e9e3b5596ece6b9d5975a0ae0",
        "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    ];
    assert_eq!(proof, known);
}

/// Every size up to 70, every index and every older size: the same roots and proofs as the naive definition, each
/// verifies, and none does with another leaf, root, size or with a hash more or less.
#[test]
fn proofs_are_those_of_the_naive_definition() {
    let all = leaves(70);
    let (_, nodes) = grown(&all);
    for size in 1..=all.len() {
        let tree = &all[..size];
        let root = naive_root(tree);
        assert_eq!(grown(tree).0.root(), root);
        let size = size as u64;
        assert_eq!(Range { start: 0, end: size }.hash(&nodes), Some(root));
        for index in 0..size {
            let path = inclusion_proof(&nodes, index, size).unwrap();
            assert_eq!(path, naive_path(index as usize, tree));
            let leaf = TreeHash::leaf(&tree[index as usize]);
            assert!(verify_inclusion(leaf, index, size, &path, root));
            assert!(!verify_inclusion(TreeHash::leaf(b"x"), index, size, &path, root));
            assert!(!verify_inclusion(leaf, index, size, &path, leaf) || size == 1);
            assert!(!verify_inclusion(leaf, index ^ 1, size, &path, root) || size == 1);
            assert!(!verify_inclusion(leaf, index, size, &[&path[..], &[leaf]].concat(), root));
            if let Some((_, short)) = path.split_last() {
                assert!(!verify_inclusion(leaf, index, size, short, root));
            }
        }
        assert_eq!(inclusion_proof(&nodes, size, size), None);
        for old in 1..=size {
            let proof = consistency_proof(&nodes, old, size).unwrap();
            assert_eq!(proof, naive_consistency(old as usize, tree, true));
            let old_root = naive_root(&tree[..old as usize]);
            assert!(verify_consistency(old, old_root, size, root, &proof));
            assert!(!verify_consistency(old, TreeHash::leaf(b"x"), size, root, &proof));
            assert!(!verify_consistency(old, old_root, size, TreeHash::leaf(b"x"), &proof));
            assert!(!verify_consistency(old, old_root, size, root, &[&proof[..], &[root]].concat()));
            if let Some((_, short)) = proof.split_last() {
                assert!(!verify_consistency(old, old_root, size, root, short));
            }
        }
        assert_eq!(consistency_proof(&nodes, size + 1, size), None);
        assert!(!verify_consistency(size + 1, root, size, root, &[]));
    }
}

/// A reader of the log that keeps the named subtrees and no others makes the same proof, and with one less it makes none.
#[test]
fn the_named_subtrees_are_those_that_a_proof_needs() {
    let (_, nodes) = grown(&leaves(40));
    let kept =
        |ids: &[NodeId]| -> BTreeMap<NodeId, TreeHash> { ids.iter().map(|id| (*id, nodes[id])).collect() };
    type Made<'a> = &'a dyn Fn(&BTreeMap<NodeId, TreeHash>) -> Option<Vec<TreeHash>>;
    let needed = |ids: Vec<NodeId>, proof: Made<'_>| {
        assert_eq!(proof(&kept(&ids)), proof(&nodes));
        for left_out in 0..ids.len() {
            let others = [&ids[..left_out], &ids[left_out + 1..]].concat();
            assert_eq!(proof(&kept(&others)), None);
        }
    };
    for size in [1, 7, 32, 40] {
        for index in 0..size {
            needed(inclusion_nodes(index, size).unwrap(), &|nodes| inclusion_proof(nodes, index, size));
            needed(consistency_nodes(index, size).unwrap(), &|nodes| consistency_proof(nodes, index, size));
        }
        assert_eq!((inclusion_nodes(size, size), consistency_nodes(size + 1, size)), (None, None));
    }
}

#[test]
fn nothing_is_consistent_with_everything_and_only_without_a_proof() {
    let root = naive_root(&leaves(5));
    assert_eq!(consistency_proof(&BTreeMap::new(), 0, 5), Some(vec![]));
    assert!(verify_consistency(0, TreeHash::empty(), 5, root, &[]));
    assert!(!verify_consistency(0, root, 5, root, &[]));
    assert!(!verify_consistency(0, TreeHash::empty(), 5, root, &[root]));
}

#[test]
fn one_flipped_hash_fails_a_proof() {
    let all = leaves(37);
    let (edge, nodes) = grown(&all);
    let leaf = TreeHash::leaf(&all[11]);
    let path = inclusion_proof(&nodes, 11, 37).unwrap();
    let proof = consistency_proof(&nodes, 11, 37).unwrap();
    let old = naive_root(&all[..11]);
    for at in 0..path.len() {
        let mut flipped = path.clone();
        flipped[at].0[at] ^= 1;
        assert!(!verify_inclusion(leaf, 11, 37, &flipped, edge.root()));
    }
    for at in 0..proof.len() {
        let mut flipped = proof.clone();
        flipped[at].0[at] ^= 1;
        assert!(!verify_consistency(11, old, 37, edge.root(), &flipped));
    }
}

#[test]
fn an_edge_is_rebuilt_from_nodes() {
    let all = leaves(70);
    let (mut whole, nodes) = grown(&all);
    for size in 0..=70 {
        let rebuilt = Edge::from_nodes(size, &nodes).unwrap();
        assert_eq!((rebuilt.size(), rebuilt.root()), (size, naive_root(&all[..size as usize])));
    }
    let mut rebuilt = Edge::from_nodes(70, &nodes).unwrap();
    for edge in [&mut whole, &mut rebuilt] {
        edge.push(TreeHash::leaf(b"next"), |_, _| {});
    }
    assert_eq!(whole.root(), rebuilt.root());
    assert!(Edge::from_nodes(71, &nodes).is_none());
}

#[test]
fn hostile_sizes_end_at_once() {
    let hash = TreeHash::empty();
    let long = vec![hash; 1000];
    for size in [u64::MAX, u64::MAX - 1, 1 << 63, TREE_SIZE_MAX] {
        for index in [0, 1, size / 2, size - 1, size] {
            assert!(!verify_inclusion(hash, index, size, &long, hash));
            assert!(!verify_consistency(index, hash, size, hash, &long));
            assert_eq!(root_from_set(&[(index, hash)], size, &long), None);
        }
    }
    assert!(inclusion_nodes(0, TREE_SIZE_MAX).unwrap().len() <= 2 * PROOF_HASHES_MAX);
}

#[test]
fn the_text_of_a_hash_is_canonical() {
    let text = TreeHash::empty().to_string();
    assert_eq!(text, "47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=");
    assert_eq!(text.parse(), Ok(TreeHash::empty()));
    for bad in
        ["", "47DE", &text[..43], &text.replace("FU=", "FV="), &format!("{text}\n"), &text.replace('+', "-")]
    {
        assert!(bad.parse::<TreeHash>().is_err(), "{bad:?}");
    }
}

proptest! {
    /// Any set of entries of any tree: its proof leads to the root, and to no other for other leaves.
    #[test]
    fn a_set_of_leaves_leads_to_the_root(
        size in 1_usize..200,
        picks in proptest::collection::btree_set(0_usize..200, 1..20),
        changed in any::<proptest::sample::Index>(),
    ) {
        let all = leaves(size);
        let (edge, nodes) = grown(&all);
        let indices: Vec<u64> = picks.iter().map(|pick| (pick % size) as u64)
            .collect::<std::collections::BTreeSet<_>>().into_iter().collect();
        let proof = set_proof(&nodes, &indices, size as u64).unwrap();
        let mut known: Vec<_> =
            indices.iter().map(|index| (*index, TreeHash::leaf(&all[*index as usize]))).collect();
        prop_assert_eq!(root_from_set(&known, size as u64, &proof), Some(edge.root()));
        let longer = [&proof[..], &[edge.root()]].concat();
        prop_assert_eq!(root_from_set(&known, size as u64, &longer), None);
        if let Some((_, short)) = proof.split_last() {
            prop_assert_eq!(root_from_set(&known, size as u64, short), None);
        }
        let at = changed.index(known.len());
        known[at].1.0[7] ^= 1;
        prop_assert_ne!(root_from_set(&known, size as u64, &proof), Some(edge.root()));
    }

    #[test]
    fn a_larger_tree_is_consistent_with_a_smaller(size in 1_usize..600, part in 0_usize..600) {
        let all = leaves(size);
        let old = part % (size + 1);
        let (edge, nodes) = grown(&all);
        let proof = consistency_proof(&nodes, old as u64, size as u64).unwrap();
        let old_root = naive_root(&all[..old]);
        prop_assert!(proof.len() <= PROOF_HASHES_MAX);
        prop_assert!(verify_consistency(old as u64, old_root, size as u64, edge.root(), &proof));
    }
}

#[test]
fn sets_are_ascending_within_the_tree_and_not_empty() {
    let all = leaves(9);
    let (_, nodes) = grown(&all);
    for bad in [&[][..], &[3, 3], &[4, 2], &[9]] {
        assert_eq!(set_proof(&nodes, bad, 9), None, "{bad:?}");
        let known: Vec<_> = bad.iter().map(|index| (*index, TreeHash::empty())).collect();
        assert_eq!(root_from_set(&known, 9, &[TreeHash::empty(); 4]), None, "{bad:?}");
    }
}

#[test]
fn an_edge_is_taken_down_and_put_up_again_at_every_size() {
    let mut edge = Edge::default();
    for size in 0..70_u64 {
        let peaks = edge.peaks().to_vec();
        assert_eq!(Edge::from_peaks(size, peaks.clone()).as_ref(), Some(&edge));
        assert_eq!(Edge::from_peaks(size, [peaks, vec![TreeHash::empty()]].concat()), None);
        edge.push(TreeHash::leaf(&size.to_le_bytes()), |_, _| {});
    }
    assert!(Edge::from_peaks(TREE_SIZE_MAX, vec![TreeHash::empty(); 63]).is_some());
    assert_eq!(Edge::from_peaks(TREE_SIZE_MAX + 1, vec![TreeHash::empty()]), None);
}
