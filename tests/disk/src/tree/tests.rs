//! What is left after a power cut, case by case.
//!
//! Owns: the proof that the model forgets what it must. Must not: mount anything. Next: `../tree.rs`.

use super::*;

const FILE: Inode = 2;

fn tree(operations: &[Operation]) -> Tree {
    let mut tree = Tree::default();
    tree.apply(&Operation::Create { parent: ROOT, name: "file".to_owned(), inode: FILE });
    operations.iter().for_each(|operation| tree.apply(operation));
    tree
}

fn write(at: usize, data: &[u8]) -> Operation {
    Operation::Write { inode: FILE, at, data: data.to_vec() }
}

const SYNC: Operation = Operation::Sync { inode: FILE };
const SYNC_NAMES: Operation = Operation::SyncDirectory { inode: ROOT };

fn left(tree: &Tree, cut: Cut) -> Option<Vec<u8>> {
    tree.image(ROOT, cut).remove("file")
}

#[test]
fn what_was_not_synced_is_lost_and_what_was_is_kept() {
    let tree = tree(&[write(0, b"durable"), SYNC, SYNC_NAMES, write(0, b"D"), write(7, b" not")]);
    assert_eq!(tree.contents(FILE), Some(&b"Durable not"[..]));
    assert_eq!(left(&tree, Cut::Lost), Some(b"durable".to_vec()));
    assert_eq!(left(&tree, Cut::Kept), Some(b"Durable not".to_vec()));
}

#[test]
fn a_name_is_lost_unless_its_directory_was_synced() {
    assert_eq!(left(&tree(&[write(0, b"x"), SYNC]), Cut::Lost), None);
    let gone = Operation::Unlink { parent: ROOT, name: "file".to_owned() };
    let back = tree(&[write(0, b"x"), SYNC, SYNC_NAMES, gone.clone()]);
    assert_eq!(left(&back, Cut::Lost), Some(b"x".to_vec()), "an unlink can be lost, too");
    assert_eq!(left(&tree(&[SYNC_NAMES, gone, SYNC_NAMES]), Cut::Kept), None);
}

#[test]
fn a_failed_sync_loses_the_writes_and_the_next_one_does_not_bring_them_back() {
    let mut tree = tree(&[SYNC_NAMES, write(0, b"lost")]);
    tree.forget_unsynced(FILE);
    tree.apply(&SYNC);
    assert_eq!(tree.contents(FILE), Some(&b"lost"[..]), "readers go on seeing them");
    assert_eq!(left(&tree, Cut::Lost), Some(Vec::new()));
}

#[test]
fn a_scattered_cut_loses_reorders_and_tears() {
    let (first, second) = ([1u8; 2048], [2u8; 2048]);
    let tree = tree(&[SYNC_NAMES, SYNC, write(0, &first), write(2048, &second)]);
    let images: Vec<Vec<u8>> = (0..200).filter_map(|seed| left(&tree, Cut::Scattered(seed))).collect();
    let sectors = |image: &[u8]| image.chunks(SECTOR_BYTES[0]).map(|sector| sector[0]).collect::<Vec<u8>>();
    let any = |test: &dyn Fn(&[u8]) -> bool| images.iter().any(|image| test(&sectors(image)));
    assert!(any(&|image| image.is_empty()), "everything lost");
    assert!(any(&|image| image == [1, 1, 1, 1, 2, 2, 2, 2]), "everything kept");
    assert!(any(&|image| image == [0, 0, 0, 0, 2, 2, 2, 2]), "the later write without the earlier");
    assert!(any(&|image| image.len() > 4 && image[4..].contains(&0) && image[4..].contains(&2)), "a torn write");
}

#[test]
fn a_prefix_keeps_the_order_of_writes() {
    let tree = tree(&[SYNC_NAMES, SYNC, write(0, &[1; 512]), write(512, &[2; 512]), write(1024, &[3; 512])]);
    for seed in 0..100 {
        let image = left(&tree, Cut::Prefix(seed)).expect("its name is durable");
        let sectors: Vec<u8> = image.chunks(SECTOR_BYTES[0]).map(|sector| sector[0]).collect();
        assert!([1, 2, 3].starts_with(&sectors), "{sectors:?}");
    }
}
