//! The board without a screen: a command on each line of standard input, a JSON object on each line of standard output.
//!
//! Owns: the commands and what is answered. Must not: say that something is saved before it is.
//! Next: `member.rs`; docs/gossip.md, "Without a screen".

use std::io::{BufRead as _, Write as _};
use std::sync::{Arc, Mutex};

use serde_json::{Value, json};
use syncline::block_on;

use crate::member::{Member, Standing, Status};

/// Answers every command, until standard input ends or a command says so.
pub(crate) fn run(member: Member) -> anyhow::Result<()> {
    let out = Arc::new(Mutex::new(std::io::stdout()));
    let status = member.status(0)?;
    print(
        &out,
        &json!({ "event": "ready", "name": member.name, "member": status.member, "listen": status.listening }),
    )?;
    let told = Arc::clone(&out);
    member.follow(move |(heads, changes)| {
        let line = json!({ "event": "changed", "heads": heads, "changes": changes });
        // Whoever read this is gone; the end of standard input says so too.
        let _ = print(&told, &line);
    });
    for line in std::io::stdin().lock().lines() {
        let line = line?;
        let (command, rest) = line.split_once(' ').unwrap_or((&line, ""));
        if command == "quit" {
            break;
        }
        let answer = match answer(&member, command, rest) {
            Ok(answer) => answer,
            Err(error) => json!({ "event": "error", "command": line, "error": format!("{error:#}") }),
        };
        print(&out, &answer)?;
    }
    member.stop()
}

fn answer(member: &Member, command: &str, rest: &str) -> anyhow::Result<Value> {
    let board = &member.board;
    match command {
        "say" => board.say(&member.name, rest)?,
        "task" => board.add_task(rest)?,
        "toggle" => board.toggle(rest.parse()?)?,
        "note" => board.append(rest)?,
        "cheer" => board.cheer()?,
        "cut" | "join" => {
            member.mesh.set_online(command == "join");
            return Ok(json!({ "event": "done", "command": command }));
        }
        "peer" => {
            member.mesh.add_peer(rest)?;
            return Ok(json!({ "event": "done", "command": command }));
        }
        "state" => return Ok(state_of(&member.status(usize::MAX)?)),
        _ => anyhow::bail!("the commands are say, task, toggle, note, cheer, cut, join, peer, state, quit"),
    }
    block_on(board.document().saved())?;
    Ok(json!({ "event": "saved", "command": command, "text": rest }))
}

fn state_of(status: &Status) -> Value {
    let peers = status.peers.iter().map(|peer| {
        let standing = match peer.standing {
            Standing::Unknown => "unknown",
            Standing::Same => "same",
            Standing::Behind => "behind",
            Standing::Ahead => "ahead",
        };
        let latency_ms = peer.latency.map(|latency| latency.as_secs_f64() * 1_000.0);
        json!({
            "name": peer.name, "standing": standing, "heads": peer.heads, "latency_ms": latency_ms,
            "skew_ms": peer.skew_ms, "repaired_s_ago": peer.repaired.map(|(ago, _)| ago.as_secs_f64()),
            "repair_found": peer.repaired.map(|(_, found)| found),
        })
    });
    let chat = status.board.chat.iter().map(|(who, text)| json!({ "who": who, "text": text }));
    let tasks = status.board.tasks.iter().map(|(title, done)| json!({ "title": title, "done": done }));
    json!({
        "event": "state", "online": status.online, "heads": status.board.heads, "changes": status.board.changes,
        "chat": chat.collect::<Vec<_>>(), "tasks": tasks.collect::<Vec<_>>(), "notes": status.board.notes,
        "cheers": status.board.cheers, "stamp": status.stamp, "peers": peers.collect::<Vec<_>>(),
    })
}

fn print(out: &Mutex<std::io::Stdout>, line: &Value) -> anyhow::Result<()> {
    let mut out = out.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    writeln!(out, "{line}")?;
    out.flush()?;
    Ok(())
}
