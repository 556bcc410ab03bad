//! Random histories, written by real automerge documents.
//!
//! Owns: a mix of everything automerge's interface can write. Must not: look at encoded bytes.
//! Next: `tests/gatekeeper.rs`.

use automerge::marks::{ExpandMark, Mark};
use automerge::transaction::{CommitOptions, Transactable};
use automerge::{ActorId, Author, AutoCommit, ObjId, ObjType, ROOT, ReadDoc, ScalarValue, Value};
use rand::{Rng, RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

const NAMES: [&str; 6] = ["a", "key", "another key", "ключ", "🔑", ""];
const WORDS: [&str; 5] = ["x", "hello world", "naïve ", "😀👨‍👩‍👧", "\n"];

/// Documents of several authors who wrote, forked and merged; the last one has merged all.
pub fn history(seed: u64, steps: usize) -> Vec<AutoCommit> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let mut documents = vec![AutoCommit::new().with_actor(actor(&mut rng))];
    for _ in 0..steps {
        let index = rng.random_range(0..documents.len());
        match rng.random_range(0..20) {
            0 if documents.len() < 5 => {
                let mut fork = documents[index].fork().with_actor(actor(&mut rng));
                if rng.random_bool(0.3) {
                    fork.set_author(Some(Author::from(&b"somebody"[..]).into_owned()));
                }
                documents.push(fork);
            }
            1 | 2 => merge(&mut documents, index, &mut rng),
            3 => {
                documents[index].empty_change(CommitOptions::default().with_time(rng.random_range(-5..2_000_000_000)));
            }
            4 => isolated(&mut documents[index], &mut rng),
            5 => {
                let fresh = actor(&mut rng);
                documents[index].set_actor(fresh);
            }
            _ => transaction(&mut documents[index], &mut rng),
        }
    }
    let mut all = documents[0].fork().with_actor(actor(&mut rng));
    for document in &mut documents {
        all.merge(document).expect("histories of one document merge");
    }
    transaction(&mut all, &mut rng);
    documents.push(all);
    documents
}

fn actor(rng: &mut impl Rng) -> ActorId {
    let length = if rng.random_bool(0.8) { 16 } else { rng.random_range(1..=40) };
    ActorId::from((0..length).map(|_| rng.random()).collect::<Vec<u8>>())
}

fn merge(documents: &mut [AutoCommit], index: usize, rng: &mut impl Rng) {
    let mut other = documents[rng.random_range(0..documents.len())].fork();
    documents[index].merge(&mut other).expect("histories of one document merge");
}

/// Writes on top of an old state.
fn isolated(document: &mut AutoCommit, rng: &mut impl Rng) {
    let hashes: Vec<_> = document.get_changes(&[]).iter().map(|change| change.hash()).collect();
    if hashes.is_empty() {
        return;
    }
    document.isolate(&[hashes[rng.random_range(0..hashes.len())]]);
    transaction(document, rng);
    document.integrate();
}

fn transaction(document: &mut AutoCommit, rng: &mut impl Rng) {
    for _ in 0..rng.random_range(1..8) {
        let (object, kind) = random_object(document, rng);
        match kind {
            ObjType::Map | ObjType::Table => write_map(document, &object, rng),
            ObjType::List => write_list(document, &object, rng),
            ObjType::Text => write_text(document, &object, rng),
        }
    }
    let mut options = CommitOptions::default();
    if rng.random_bool(0.5) {
        options = options.with_time(rng.random_range(0..2_000_000_000));
    }
    if rng.random_bool(0.3) {
        options = options.with_message(WORDS[rng.random_range(0..WORDS.len())]);
    }
    document.commit_with(options);
}

fn random_object(document: &AutoCommit, rng: &mut impl Rng) -> (ObjId, ObjType) {
    let mut place = (ROOT, ObjType::Map);
    while rng.random_bool(0.7) {
        let child = match place.1 {
            ObjType::Map | ObjType::Table => {
                document.get(&place.0, NAMES[rng.random_range(0..NAMES.len())]).expect("a map takes every key")
            }
            ObjType::List => {
                let length = document.length(&place.0);
                if length == 0 { None } else { document.get(&place.0, rng.random_range(0..length)).expect("in range") }
            }
            ObjType::Text => None,
        };
        let Some((Value::Object(kind), id)) = child else {
            break;
        };
        place = (id, kind);
    }
    place
}

fn write_map(document: &mut AutoCommit, object: &ObjId, rng: &mut impl Rng) {
    let name = NAMES[rng.random_range(0..NAMES.len())];
    let counted = matches!(document.get(object, name), Ok(Some((value, _))) if value.is_counter());
    let result = match rng.random_range(0..8) {
        _ if counted && rng.random_bool(0.7) => document.increment(object, name, rng.random_range(-100..100)),
        0..3 => document.put_object(object, name, object_type(rng)).map(|_| ()),
        3 => document.delete(object, name),
        _ => document.put(object, name, scalar(rng)),
    };
    // Some versions refuse the empty key, and deleting what is not there; nothing is written then.
    drop(result);
}

fn write_list(document: &mut AutoCommit, object: &ObjId, rng: &mut impl Rng) {
    let length = document.length(object);
    let place = rng.random_range(0..=length);
    match rng.random_range(0..7) {
        0 => {
            document.insert_object(object, place, object_type(rng)).expect("in range");
        }
        1 if place < length => document.put(object, place, scalar(rng)).expect("in range"),
        2 if place < length => document.delete(object, place).expect("in range"),
        3 if place < length => {
            let counted = matches!(document.get(object, place), Ok(Some((value, _))) if value.is_counter());
            if counted {
                document.increment(object, place, 3).expect("it is a counter");
            }
        }
        4 => {
            let values: Vec<_> = (0..rng.random_range(1..6)).map(|_| scalar(rng)).collect();
            let deletions = rng.random_range(0..=(length - place).min(3)) as isize;
            document.splice(object, place, deletions, values).expect("in range");
        }
        _ => document.insert(object, place, scalar(rng)).expect("in range"),
    }
}

fn write_text(document: &mut AutoCommit, object: &ObjId, rng: &mut impl Rng) {
    let length = document.length(object);
    let place = rng.random_range(0..=length);
    match rng.random_range(0..8) {
        0 => {
            let end = rng.random_range(place..=length);
            let expand = [ExpandMark::None, ExpandMark::Both, ExpandMark::Before, ExpandMark::After];
            let expand = expand[rng.random_range(0..4)];
            if rng.random_bool(0.3) {
                document.unmark(object, "bold", place, end, expand).expect("in range");
            } else {
                document.mark(object, Mark::new("bold".into(), scalar(rng), place, end), expand).expect("in range");
            }
        }
        1 => {
            document.split_block(object, place).expect("in range");
        }
        2 => {
            let paste: String =
                (0..rng.random_range(50..400)).map(|_| WORDS[rng.random_range(0..WORDS.len())]).collect();
            document.splice_text(object, place, 0, &paste).expect("in range");
        }
        3..5 => {
            let deletions = rng.random_range(0..=(length - place).min(20)) as isize;
            document.splice_text(object, place, deletions, "").expect("in range");
        }
        5 if place < length => document.put(object, place, "z").expect("in range"),
        _ => {
            document.splice_text(object, place, 0, WORDS[rng.random_range(0..WORDS.len())]).expect("in range");
        }
    }
}

fn object_type(rng: &mut impl Rng) -> ObjType {
    [ObjType::Map, ObjType::List, ObjType::Text][rng.random_range(0..3)]
}

fn scalar(rng: &mut impl Rng) -> ScalarValue {
    match rng.random_range(0..12) {
        0 => ScalarValue::Null,
        1 => ScalarValue::Boolean(rng.random()),
        2 => ScalarValue::Uint(rng.random::<u64>() >> rng.random_range(0..64)),
        3 => ScalarValue::Int(rng.random::<i64>() >> rng.random_range(0..64)),
        4 => ScalarValue::F64(rng.random_range(-1e9..1e9)),
        5 => ScalarValue::Str(WORDS[rng.random_range(0..WORDS.len())].into()),
        6 => ScalarValue::Bytes((0..rng.random_range(0..50)).map(|_| rng.random()).collect()),
        7 => ScalarValue::counter(rng.random_range(-1000..1000)),
        8 => ScalarValue::Timestamp(rng.random_range(-1_000_000_000..1_000_000_000_000)),
        9 => ScalarValue::Unknown { type_code: rng.random_range(10..16), bytes: vec![1, 2, 3] },
        _ => ScalarValue::counter(0),
    }
}
