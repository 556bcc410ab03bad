//! The board on a terminal: keys in, pictures out.
//!
//! Owns: the terminal, the loop, what each key does. Must not: draw; `screen/draw.rs` does.
//! Next: `screen/draw.rs`, `member.rs`.

#![allow(clippy::wildcard_enum_match_arm, reason = "a keyboard has more keys than a board has uses")]

use std::time::Duration;

use ratatui::DefaultTerminal;
use ratatui::crossterm::event::{self, Event, KeyCode, KeyEvent, KeyEventKind, KeyModifiers};
use syncline::automerge::Cursor;

use crate::member::{Member, Status};

mod draw;

/// Between two pictures while nothing is typed.
const FRAME: Duration = Duration::from_millis(200);

/// Lines of the chat that are looked at.
const LINES_MAX: usize = 200;

/// Which part of the board has the keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Focus {
    Chat,
    Tasks,
    Notes,
}

/// What is on the screen beside the status.
#[derive(Debug)]
struct Screen {
    focus: Focus,
    /// The line that is being typed, for chat and tasks.
    input: String,
    /// The task that the space bar ticks off.
    selected: usize,
    /// Where the text is edited, in characters, as of the last picture.
    caret: usize,
    /// The same place, whatever others write before it; `None` for the end.
    cursor: Option<Cursor>,
    /// What went wrong last.
    message: String,
}

/// What a key leads to.
#[derive(Debug, PartialEq, Eq)]
enum Next {
    GoOn,
    Quit,
}

/// Shows the board until somebody quits.
pub(crate) fn run(member: Member) -> anyhow::Result<()> {
    member.follow(|_| {});
    let mut terminal = ratatui::init();
    let shown = show(&mut terminal, &member);
    ratatui::restore();
    shown.and(member.stop())
}

fn show(terminal: &mut DefaultTerminal, member: &Member) -> anyhow::Result<()> {
    let mut screen = Screen::new();
    loop {
        let status = member.status(LINES_MAX)?;
        screen.find_caret(member);
        terminal.draw(|frame| draw::draw(frame, &status, &screen))?;
        if event::poll(FRAME)?
            && let Event::Key(key) = event::read()?
            && key.kind != KeyEventKind::Release
            && screen.press(key, member, &status) == Next::Quit
        {
            return Ok(());
        }
    }
}

impl Screen {
    fn new() -> Self {
        Self { focus: Focus::Chat, input: String::new(), selected: 0, caret: 0, cursor: None, message: String::new() }
    }

    fn press(&mut self, key: KeyEvent, member: &Member, status: &Status) -> Next {
        self.message.clear();
        let done = match (key.code, key.modifiers.contains(KeyModifiers::CONTROL)) {
            (KeyCode::Char('c' | 'q'), true) => return Next::Quit,
            (KeyCode::Char('x'), true) => {
                member.mesh.set_online(!status.online);
                Ok(())
            }
            (KeyCode::Char('k'), true) => member.board.cheer(),
            (_, true) => Ok(()),
            (KeyCode::Tab | KeyCode::BackTab, _) => {
                self.turn(key.code == KeyCode::Tab);
                Ok(())
            }
            (code, false) => match self.focus {
                Focus::Chat => self.press_in_chat(code, member),
                Focus::Tasks => self.press_in_tasks(code, member, status),
                Focus::Notes => self.press_in_notes(code, member, status),
            },
        };
        if let Err(error) = done {
            self.message = error.to_string();
        }
        Next::GoOn
    }

    fn turn(&mut self, forward: bool) {
        self.input.clear();
        self.focus = match (self.focus, forward) {
            (Focus::Chat, true) | (Focus::Notes, false) => Focus::Tasks,
            (Focus::Tasks, true) | (Focus::Chat, false) => Focus::Notes,
            (Focus::Notes, true) | (Focus::Tasks, false) => Focus::Chat,
        };
    }

    fn press_in_chat(&mut self, code: KeyCode, member: &Member) -> Result<(), syncline::Error> {
        match self.typed(code) {
            Some(text) => member.board.say(&member.name, &text),
            None => Ok(()),
        }
    }

    fn press_in_tasks(&mut self, code: KeyCode, member: &Member, status: &Status) -> Result<(), syncline::Error> {
        let last = status.board.tasks.len().saturating_sub(1);
        match code {
            KeyCode::Up => self.selected = self.selected.min(last).saturating_sub(1),
            KeyCode::Down => self.selected = (self.selected + 1).min(last),
            KeyCode::Char(' ') if self.input.is_empty() => return member.board.toggle(self.selected.min(last)),
            code => {
                if let Some(title) = self.typed(code) {
                    return member.board.add_task(&title);
                }
            }
        }
        Ok(())
    }

    fn press_in_notes(&mut self, code: KeyCode, member: &Member, status: &Status) -> Result<(), syncline::Error> {
        let length = status.board.notes.chars().count();
        let at = self.caret.min(length);
        let (to, edit) = match code {
            KeyCode::Char(c) => (at + 1, Some((at, 0, c.to_string()))),
            KeyCode::Enter => (at + 1, Some((at, 0, "\n".to_owned()))),
            KeyCode::Backspace if at > 0 => (at - 1, Some((at - 1, 1, String::new()))),
            KeyCode::Delete if at < length => (at, Some((at, 1, String::new()))),
            KeyCode::Left => (at.saturating_sub(1), None),
            KeyCode::Right => ((at + 1).min(length), None),
            KeyCode::Home => (0, None),
            KeyCode::End => (length, None),
            _ => return Ok(()),
        };
        if let Some((at, delete, insert)) = edit {
            member.board.splice(at, delete, &insert)?;
        }
        self.put_caret(member, to)
    }

    fn put_caret(&mut self, member: &Member, to: usize) -> Result<(), syncline::Error> {
        let notes = member.board.document().text(["notes"])?;
        self.caret = to;
        self.cursor = if to < notes.length()? { Some(notes.cursor(to)?) } else { None };
        Ok(())
    }

    /// Others may have written before the caret.
    fn find_caret(&mut self, member: &Member) {
        let Ok(notes) = member.board.document().text(["notes"]) else { return };
        let end = notes.length().unwrap_or_default();
        let place = self.cursor.as_ref().map(|cursor| notes.position(cursor).unwrap_or(end));
        self.caret = place.unwrap_or(end);
    }

    /// A key of a line that is typed; the line, once it is done.
    fn typed(&mut self, code: KeyCode) -> Option<String> {
        match code {
            KeyCode::Char(c) => self.input.push(c),
            KeyCode::Backspace => drop(self.input.pop()),
            KeyCode::Esc => self.input.clear(),
            KeyCode::Enter if !self.input.trim().is_empty() => return Some(std::mem::take(&mut self.input)),
            _ => {}
        }
        None
    }
}

#[cfg(test)]
mod tests;
