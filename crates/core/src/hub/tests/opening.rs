//! How many documents one connection may open.
//!
//! Owns: what counts and what does not. Must not: know how hubs share the count.
//! Next: `passing.rs`; `../connection.rs`.

use super::*;

fn at_most(documents_max: usize) -> Stage {
    Stage::with(Limits { session_documents_max: documents_max, ..Limits::default() })
}

/// Asks for a document; whether it was opened.
fn opens(stage: &mut Stage, session: SessionId, n: u8) -> bool {
    let refused = stage.refused.len();
    stage.request(session, &document(n));
    let said = stage.take(session);
    assert!(said.contains(&Said::Unavailable), "nobody has it: {said:?}");
    let told = said.iter().any(|said| matches!(said, Said::Error(words) if words.contains("the most allowed")));
    assert_eq!(told, stage.refused.len() > refused, "what is refused is told and counted");
    !told
}

#[test]
fn a_connection_has_one_count_over_all_hubs() {
    let (mut one, mut two) = (at_most(3), at_most(3));
    let opened = OpenedDocuments::default();
    one.connect_sharing(A, Role::Downstream, None, &opened);
    two.connect_sharing(A, Role::Downstream, None, &opened);
    assert!(opens(&mut one, A, 1) && opens(&mut two, A, 2) && opens(&mut one, A, 3));
    assert!(!opens(&mut one, A, 4) && !opens(&mut two, A, 5));
    assert!(opens(&mut one, A, 1) && opens(&mut two, A, 2), "what is open stays open");
    one.connect(B);
    assert!(opens(&mut one, B, 4), "another connection has a count of its own");
}

#[test]
fn an_ephemeral_message_opens_its_document() {
    let mut stage = at_most(1);
    stage.connect(A);
    let ephemeral = |n| PeerMessage::Ephemeral {
        document: document(n),
        sender: peer(A),
        count: u64::from(n),
        session: "tab".into(),
        data: Bytes::new(),
    };
    stage.pass(A, ephemeral(1));
    assert!(stage.refused.is_empty());
    stage.pass(A, ephemeral(2));
    assert_eq!(stage.refused, [(Some(A), Remark::TooManyDocuments { documents_max: 1 })]);
    assert!(!opens(&mut stage, A, 3));
    assert!(opens(&mut stage, A, 1));
}

#[test]
fn documents_of_which_we_spoke_first_are_not_counted() {
    let mut stage = at_most(1);
    stage.connect_as(A, Role::Upstream, None);
    for n in 1..=3 {
        stage.input(Input::Watch { document: document(n) });
    }
    for n in 1..=3 {
        stage.sync(A, &document(n), &[], &[]);
    }
    assert!(stage.refused.is_empty(), "its answers are taken");
    stage.sync(A, &document(4), &[], &[]);
    assert!(stage.refused.is_empty(), "it may open one of its own");
    stage.sync(A, &document(5), &[], &[]);
    assert_eq!(stage.refused, [(Some(A), Remark::TooManyDocuments { documents_max: 1 })]);
}
