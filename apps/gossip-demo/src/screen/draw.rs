//! What the board looks like on a terminal.
//!
//! Owns: the layout and the words. Must not: change anything. Next: `../screen.rs`.

use std::time::Duration;

use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Position, Rect};
use ratatui::style::{Color, Modifier, Style, Stylize};
use ratatui::text::{Line, Span, Text};
use ratatui::widgets::{Block, BorderType, Cell, Paragraph, Row, Table, Wrap};

use super::{Focus, Screen};
use crate::member::{Peer, Standing, Status};

/// Digits of a head that are shown.
const HEAD_DIGITS: usize = 7;

/// Lines that the notes take.
const NOTES_LINES: u16 = 6;

pub(super) fn draw(frame: &mut Frame<'_>, status: &Status, screen: &Screen) {
    let peers = (status.peers.len() as u16).clamp(1, 6) + 3;
    let rows = [
        Constraint::Length(2),
        Constraint::Min(6),
        Constraint::Length(NOTES_LINES + 2),
        Constraint::Length(peers),
        Constraint::Length(1),
    ];
    let [top, middle, notes, bottom, help] = Layout::vertical(rows).areas(frame.area());
    let [chat, tasks] = Layout::horizontal([Constraint::Percentage(58), Constraint::Percentage(42)]).areas(middle);
    frame.render_widget(header(status), top);
    draw_chat(frame, chat, status, screen);
    draw_tasks(frame, tasks, status, screen);
    draw_notes(frame, notes, status, screen);
    draw_peers(frame, bottom, status);
    frame.render_widget(footer(screen), help);
}

fn header(status: &Status) -> Paragraph<'static> {
    let state = if status.online {
        Span::from(" IN THE MESH ").black().on_green().bold()
    } else {
        Span::from(" CUT OFF ").white().on_red().bold()
    };
    let first = Line::from(vec![
        Span::from(format!(" {} ", status.name)).bold(),
        state,
        Span::from(format!("  listening on {}", status.listening)).dim(),
    ]);
    let heads = heads_of(&status.board.heads);
    let (told, heard, again) = status.notices;
    let second = Line::from(vec![
        Span::from(" clock ").dim(),
        Span::from(status.stamp.clone()),
        Span::from("   changes ").dim(),
        Span::from(status.board.changes.to_string()),
        Span::from("   heads ").dim(),
        Span::from(heads).yellow(),
        Span::from(format!("   notices {told} told, {heard} heard, {again} again")).dim(),
    ]);
    Paragraph::new(vec![first, second])
}

fn footer(screen: &Screen) -> Paragraph<'static> {
    if !screen.message.is_empty() {
        return Paragraph::new(Line::from(screen.message.clone()).white().on_red());
    }
    let keys = match screen.focus {
        Focus::Chat => "type and Enter to say it",
        Focus::Tasks => "type and Enter to add · ↑↓ choose · Space ticks off",
        Focus::Notes => "type to write · ←→ Home End · Backspace",
    };
    let all = format!(" Tab next · {keys} · ^K cheer · ^X cut off / join · ^C quit");
    Paragraph::new(Line::from(all).dim())
}

fn frame_of(title: String, focused: bool) -> Block<'static> {
    let block = Block::bordered().border_type(BorderType::Rounded).title(title);
    if focused { block.border_style(Style::new().fg(Color::Cyan)) } else { block.border_style(Style::new().dim()) }
}

fn draw_chat(frame: &mut Frame<'_>, area: Rect, status: &Status, screen: &Screen) {
    let focused = screen.focus == Focus::Chat;
    let block = frame_of(" Chat ".to_owned(), focused);
    let inner = block.inner(area);
    frame.render_widget(block, area);
    let [log, line] = Layout::vertical([Constraint::Min(1), Constraint::Length(1)]).areas(inner);
    let lines = status.board.chat.iter().map(|(who, text)| {
        let name = Span::from(format!("{who} ")).bold().fg(color_of(who));
        Line::from(vec![name, Span::from(text.clone())])
    });
    let lines: Vec<Line<'_>> = lines.collect();
    let shown = lines.len().saturating_sub(usize::from(log.height));
    frame.render_widget(Paragraph::new(lines[shown..].to_vec()), log);
    draw_input(frame, line, screen, focused);
}

fn draw_tasks(frame: &mut Frame<'_>, area: Rect, status: &Status, screen: &Screen) {
    let focused = screen.focus == Focus::Tasks;
    let done = status.board.tasks.iter().filter(|(_, done)| *done).count();
    let cheers = status.board.cheers;
    let title = format!(" Checklist {done}/{} · {cheers} cheers ", status.board.tasks.len());
    let block = frame_of(title, focused);
    let inner = block.inner(area);
    frame.render_widget(block, area);
    let [list, line] = Layout::vertical([Constraint::Min(1), Constraint::Length(1)]).areas(inner);
    let selected = screen.selected.min(status.board.tasks.len().saturating_sub(1));
    let lines = status.board.tasks.iter().enumerate().map(|(at, (title, done))| {
        let mark = if *done { Span::from("[x] ").green() } else { Span::from("[ ] ") };
        let title = Span::from(title.clone());
        let title = if *done { title.add_modifier(Modifier::CROSSED_OUT).dim() } else { title };
        let line = Line::from(vec![mark, title]);
        if focused && at == selected { line.reversed() } else { line }
    });
    let lines: Vec<Line<'_>> = lines.collect();
    let first = (selected + 1).saturating_sub(usize::from(list.height));
    frame.render_widget(Paragraph::new(lines[first.min(lines.len())..].to_vec()), list);
    draw_input(frame, line, screen, focused);
}

fn draw_input(frame: &mut Frame<'_>, area: Rect, screen: &Screen, focused: bool) {
    if !focused || area.is_empty() {
        return;
    }
    let room = usize::from(area.width.saturating_sub(3));
    let length = screen.input.chars().count();
    let shown: String = screen.input.chars().skip(length.saturating_sub(room)).collect();
    let column = area.x + 2 + shown.chars().count() as u16;
    frame.render_widget(Paragraph::new(Line::from(vec![Span::from("> ").cyan(), Span::from(shown)])), area);
    frame.set_cursor_position(Position::new(column.min(area.right().saturating_sub(1)), area.y));
}

fn draw_notes(frame: &mut Frame<'_>, area: Rect, status: &Status, screen: &Screen) {
    let focused = screen.focus == Focus::Notes;
    let block = frame_of(" Shared text ".to_owned(), focused);
    let inner = block.inner(area);
    frame.render_widget(block, area);
    // A terminal may be too small for any of it.
    if inner.is_empty() {
        return;
    }
    let before: String = status.board.notes.chars().take(screen.caret).collect();
    let row = before.matches('\n').count();
    let first = (row + 1).saturating_sub(usize::from(inner.height));
    let text = Text::from(status.board.notes.clone());
    let notes = Paragraph::new(text).scroll((first as u16, 0));
    // A long line is wrapped only where no caret has to be placed in it.
    frame.render_widget(if focused { notes } else { notes.wrap(Wrap { trim: false }) }, inner);
    if focused {
        let column = before.rsplit('\n').next().unwrap_or_default().chars().count() as u16;
        let x = (inner.x + column).min(inner.right().saturating_sub(1));
        frame.set_cursor_position(Position::new(x, inner.y + (row - first) as u16));
    }
}

fn draw_peers(frame: &mut Frame<'_>, area: Rect, status: &Status) {
    let title = match (status.online, status.peers.len()) {
        (false, _) => " Neighbours: none, this machine is cut off (^X joins again) ".to_owned(),
        (true, 0) => " Neighbours: looking for others ".to_owned(),
        (true, count) => format!(" Neighbours: {count} · {} more known ", status.known.saturating_sub(count)),
    };
    let widths = [
        Constraint::Min(10),
        Constraint::Length(15),
        Constraint::Length(17),
        Constraint::Length(8),
        Constraint::Length(16),
        Constraint::Length(10),
    ];
    let names = ["name", "board", "heads", "latency", "compared", "clock"];
    let header = Row::new(names.map(|name| Cell::from(name).style(Style::new().dim())));
    let rows = status.peers.iter().map(|peer| row_of(peer, status.board.changes));
    let table = Table::new(rows, widths).header(header).column_spacing(1);
    frame.render_widget(table.block(frame_of(title, false)), area);
}

fn row_of(peer: &Peer, changes: u64) -> Row<'static> {
    let (words, color) = match peer.standing {
        Standing::Unknown => ("…".to_owned(), Color::DarkGray),
        Standing::Same => ("in step".to_owned(), Color::Green),
        Standing::Behind => (format!("{} behind", changes.saturating_sub(peer.changes)), Color::Yellow),
        Standing::Ahead => ("has more".to_owned(), Color::Magenta),
    };
    let latency = peer.latency.map_or("…".to_owned(), |latency| format!("{:.1} ms", latency.as_secs_f64() * 1_000.0));
    let compared = peer.repaired.map_or("…".to_owned(), |(ago, found)| format!("{} ago: {found}", seconds(ago)));
    let skew = peer.skew_ms.map_or("…".to_owned(), |skew| format!("{skew:+} ms"));
    Row::new([
        Cell::from(Span::from(peer.name.clone()).bold().fg(color_of(&peer.name))),
        Cell::from(Span::from(words).fg(color)),
        Cell::from(Span::from(heads_of(&peer.heads)).yellow()),
        Cell::from(latency),
        Cell::from(compared),
        Cell::from(skew),
    ])
}

/// At most two heads, and how many more there are.
fn heads_of(heads: &[String]) -> String {
    let short = |head: &String| head.chars().take(HEAD_DIGITS).collect::<String>();
    let mut words: Vec<String> = heads.iter().take(2).map(short).collect();
    if heads.len() > 2 {
        words[1] = format!("+{}", heads.len() - 1);
    }
    words.join(" ")
}

fn seconds(time: Duration) -> String {
    match time.as_secs() {
        short if short < 100 => format!("{short} s"),
        long => format!("{} min", long / 60),
    }
}

/// The same name has the same colour on every machine.
fn color_of(name: &str) -> Color {
    const COLORS: [Color; 6] =
        [Color::Cyan, Color::LightGreen, Color::LightMagenta, Color::LightBlue, Color::LightYellow, Color::LightRed];
    COLORS[name.bytes().map(usize::from).sum::<usize>() % COLORS.len()]
}
