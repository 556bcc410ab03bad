//! What people see of the board, drawn into memory.
//!
//! Owns: whole screens beside their snapshots. Must not: need a terminal. Next: `draw.rs`.

use ratatui::Terminal;
use ratatui::backend::TestBackend;
use ratatui::layout::Position;

use super::*;
use crate::board::BoardState;
use crate::member::{Peer, Standing};

fn peer(name: &str, standing: Standing) -> Peer {
    Peer {
        name: name.to_owned(),
        standing,
        heads: vec!["9f3a1c77".to_owned(), "77aa0912".to_owned(), "0123abcd".to_owned()],
        changes: 17,
        latency: Some(Duration::from_micros(1_420)),
        skew_ms: Some(-3),
        repaired: Some((Duration::from_secs(4), 2)),
        since: Duration::from_secs(90),
    }
}

fn status(online: bool, peers: Vec<Peer>) -> Status {
    let said = |who: &str, text: &str| (who.to_owned(), text.to_owned());
    Status {
        name: "laptop-1".to_owned(),
        member: "a1b2c3d4".to_owned(),
        listening: "ws://0.0.0.0:40123".to_owned(),
        online,
        known: 5,
        stamp: "22:13:20.123+4".to_owned(),
        peers,
        board: BoardState {
            chat: vec![said("laptop-1", "who brings the cake?"), said("laptop-2", "I do")],
            tasks: vec![("cake".to_owned(), true), ("candles".to_owned(), false)],
            notes: "Saturday, 15:00\nin the garden".to_owned(),
            cheers: 3,
            heads: vec!["9f3a1c7788".to_owned()],
            changes: 21,
        },
        notices: (12, 9, 1),
    }
}

fn drawn(status: &Status, screen: &Screen) -> (String, Position) {
    let mut terminal = Terminal::new(TestBackend::new(100, 28)).expect("a terminal");
    terminal.draw(|frame| draw::draw(frame, status, screen)).expect("a picture");
    let cursor = terminal.get_cursor_position().expect("a cursor");
    (terminal.backend().to_string(), cursor)
}

#[test]
fn the_board_with_neighbours() {
    let mut screen = Screen::new();
    screen.input = "me too".to_owned();
    let peers =
        vec![peer("laptop-2", Standing::Same), peer("laptop-3", Standing::Behind), peer("laptop-4", Standing::Ahead)];
    let (picture, cursor) = drawn(&status(true, peers), &screen);
    insta::assert_snapshot!("neighbours", picture);
    assert_eq!(cursor, Position::new(9, 11), "behind what is typed");
}

#[test]
fn the_board_of_a_machine_that_is_cut_off() {
    let mut screen = Screen::new();
    screen.focus = Focus::Notes;
    screen.caret = 23;
    let (picture, cursor) = drawn(&status(false, Vec::new()), &screen);
    insta::assert_snapshot!("cut_off", picture);
    assert_eq!(cursor, Position::new(8, 17), "the caret is in the second line");
}

#[test]
fn a_small_terminal_and_an_empty_board_are_no_trouble() {
    for (width, height) in [(1, 1), (20, 5), (40, 10), (200, 60)] {
        let mut terminal = Terminal::new(TestBackend::new(width, height)).expect("a terminal");
        let empty = Status { board: BoardState::default(), ..status(true, Vec::new()) };
        for focus in [Focus::Chat, Focus::Tasks, Focus::Notes] {
            let screen = Screen { focus, ..Screen::new() };
            terminal.draw(|frame| draw::draw(frame, &empty, &screen)).expect("a picture");
        }
    }
}
