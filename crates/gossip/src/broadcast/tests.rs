//! Notices among a few neighbours, played by hand.
//!
//! Owns: who is sent what, and when it is asked for instead. Must not: simulate a network; `tests/mesh` does.
//! Next: `../broadcast.rs`.

use super::*;

const NOW: Duration = Duration::from_secs(1);

struct Stage {
    config: Config,
    key: MeshKey,
    broadcast: Broadcast,
}

impl Stage {
    fn new(neighbours: u64) -> Self {
        let (config, key) = (Config::default(), MeshKey::open("test"));
        let mut broadcast = Broadcast::new(Member([0; 16]), &key, &config);
        (1..=neighbours).for_each(|link| broadcast.up(NOW, SessionId(link), &config));
        Self { config, key, broadcast }
    }

    fn notice(&self, author: u8, number: u64, body: &'static [u8]) -> Message {
        let (id, body) = (NoticeId { author: Member([author; 16]), number }, Bytes::from_static(body));
        Message::Notice(Notice { hops: 0, id, seal: self.key.notices().seal(&id, &body), body })
    }

    fn receive(&mut self, from: u64, message: Message) -> Vec<Effect> {
        self.broadcast.receive(NOW, SessionId(from), message, &self.config)
    }

    fn accept(&mut self, author: u8, number: u64) -> Vec<u64> {
        let id = NoticeId { author: Member([author; 16]), number };
        let effects = self.broadcast.accept(NOW, &id, Stay::Kept, &self.config);
        effects.iter().filter_map(|effect| if let Effect::Send(to, _) = effect { Some(to.0) } else { None }).collect()
    }
}

#[test]
fn a_notice_goes_on_once_it_is_accepted_and_not_to_who_brought_it() {
    let mut stage = Stage::new(3);
    let notice = stage.notice(9, 1, b"news");
    let effects = stage.receive(2, notice);
    assert!(matches!(&effects[..], [Effect::Deliver { from: SessionId(2), .. }]), "{effects:?}");
    assert_eq!(stage.accept(9, 1), [1, 3]);
    assert_eq!(stage.accept(9, 1), [0; 0], "once");
}

#[test]
fn what_was_discarded_goes_no_further_and_does_not_come_again() {
    let mut stage = Stage::new(3);
    let notice = stage.notice(9, 1, b"bad news");
    stage.receive(2, notice.clone());
    stage.broadcast.discard(&NoticeId { author: Member([9; 16]), number: 1 });
    assert_eq!(stage.accept(9, 1), [0; 0]);
    let again = stage.receive(1, notice);
    assert!(matches!(&again[..], [Effect::Send(SessionId(1), Message::Prune)]), "{again:?}");
}

#[test]
fn a_repeated_notice_prunes_and_a_pruned_neighbour_hears_names() {
    let mut stage = Stage::new(3);
    let (first, second) = (stage.notice(9, 1, b"one"), stage.notice(9, 2, b"two"));
    stage.receive(1, first.clone());
    stage.accept(9, 1);
    let effects = stage.receive(2, first);
    assert!(matches!(&effects[..], [Effect::Send(SessionId(2), Message::Prune)]), "{effects:?}");
    stage.receive(1, second);
    assert_eq!(stage.accept(9, 2), [3], "the second is lazy");
    let due = stage.broadcast.poll_timeout().expect("names are due");
    let effects = stage.broadcast.timeout(due, &stage.config);
    let [Effect::Send(SessionId(2), Message::Have { names })] = &effects[..] else { panic!("{effects:?}") };
    assert_eq!(names[..], [NoticeId { author: Member([9; 16]), number: 2 }]);
}

#[test]
fn what_is_only_known_by_name_is_grafted_from_one_after_the_other() {
    let mut stage = Stage::new(3);
    let id = NoticeId { author: Member([9; 16]), number: 7 };
    stage.receive(1, Message::Prune);
    stage.receive(1, Message::Have { names: vec![id] });
    stage.receive(2, Message::Have { names: vec![id] });
    let mut grafts = Vec::new();
    while let Some(due) = stage.broadcast.poll_timeout() {
        for effect in stage.broadcast.timeout(due, &stage.config) {
            let Effect::Send(SessionId(to), Message::Graft { .. }) = effect else { panic!("{effect:?}") };
            grafts.push((to, due));
        }
    }
    let wait = stage.config.graft_wait;
    assert_eq!(grafts, [(1, NOW + wait), (2, NOW + 2 * wait)], "and then it is given up");
    assert_eq!(stage.broadcast.eager(), 3, "who is grafted from is eager");
}

#[test]
fn who_grafts_is_sent_the_notice_again() {
    let mut stage = Stage::new(2);
    let (id, _) = stage.broadcast.publish(NOW, Bytes::from_static(b"mine"), Stay::Kept, &stage.config);
    let effects = stage.receive(2, Message::Graft { id });
    let [Effect::Send(SessionId(2), Message::Notice(notice))] = &effects[..] else { panic!("{effects:?}") };
    assert_eq!(&notice.body[..], b"mine");
    stage.broadcast.timeout(NOW + stage.config.kept_for, &stage.config);
    assert!(stage.receive(2, Message::Graft { id }).is_empty(), "not for ever");
}

#[test]
fn a_forged_notice_is_an_offence_and_leaves_room_for_the_true_one() {
    let mut stage = Stage::new(2);
    let Message::Notice(mut forged) = stage.notice(9, 1, b"true") else { panic!("a notice") };
    forged.body = Bytes::from_static(b"lies");
    let effects = stage.receive(1, Message::Notice(forged));
    assert!(matches!(&effects[..], [Effect::Offence(Offence::Forged)]), "{effects:?}");
    let true_one = stage.notice(9, 1, b"true");
    let effects = stage.receive(2, true_one);
    assert!(matches!(&effects[..], [Effect::Deliver { .. }]), "{effects:?}");
    let in_our_name = stage.notice(0, 1, b"not ours");
    let effects = stage.receive(1, in_our_name);
    assert!(matches!(&effects[..], [Effect::Offence(Offence::Forged)]), "{effects:?}");
}

#[test]
fn what_is_kept_and_waited_for_is_bounded() {
    let mut stage = Stage::new(2);
    stage.config = Config { kept_max: 10, waiting_max: 10, missing_max: 10, ..Config::default() };
    for number in 1..=100 {
        let notice = stage.notice(9, number, b"waiting");
        stage.receive(1, notice);
        let id = NoticeId { author: Member([8; 16]), number };
        stage.receive(1, Message::Have { names: vec![id] });
        stage.broadcast.publish(NOW, Bytes::from_static(b"kept"), Stay::Kept, &stage.config);
    }
    let broadcast = &stage.broadcast;
    assert_eq!((broadcast.kept.len(), broadcast.kept_order.len(), broadcast.kept_bytes), (10, 10, 40));
    assert_eq!((broadcast.waiting.len(), broadcast.waiting_order.len()), (10, 10));
    assert_eq!((broadcast.missing.len(), broadcast.missing_due.len()), (10, 10));
}

#[test]
fn a_neighbour_is_not_flooded() {
    let mut stage = Stage::new(1);
    let sent =
        (0..5_000).map(|_| stage.broadcast.publish(NOW, Bytes::from_static(b"x"), Stay::Kept, &stage.config).1.len());
    let sent: usize = sent.sum();
    assert_eq!(sent, 2 * stage.config.sent_per_second_max as usize);
    assert_eq!(stage.broadcast.counts.shed, 5_000 - sent as u64);
}
