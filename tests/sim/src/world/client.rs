//! The clients' side of their links.
//!
//! Owns: what a stock client does with a frame, and when it speaks. Must not: look into machines.
//! Next: `../content.rs`.

use bytes::Bytes;
use syncline_core::limits::Limits;
use syncline_core::sync::message::Message;
use syncline_core::wire::{self, Body};

use super::World;
use super::hub::describe;
use crate::oracle::{Checked, Violation, require};

impl World {
    pub(super) fn client_frame(&mut self, who: usize, frame: &Bytes) -> Checked {
        let envelope = wire::decode(frame, &Limits::default())
            .map_err(|error| Violation { checker: "own frames are readable", detail: error.to_string() })?;
        match envelope.message {
            Body::Peer { .. } => {
                self.clients[who].joined = true;
                (0..self.documents.len()).for_each(|document| self.speak(who, document));
                Ok(())
            }
            Body::Sync { document, data } | Body::Request { document, data } => {
                let document = self.documents.iter().position(|own| *own == document);
                let Some(document) = document else { return Ok(()) };
                let client = &mut self.clients[who];
                let only_v1 = client.only_v1;
                let open = &mut client.documents[document];
                let received = open.content.receive(&mut open.state, data, only_v1);
                received.map_err(|error| {
                    let detail = format!("client {who} cannot take a message: {error}");
                    Violation { checker: "stock clients take what is sent", detail }
                })?;
                self.speak(who, document);
                Ok(())
            }
            Body::Ephemeral { count, .. } => {
                let client = &mut self.clients[who];
                let sender = envelope.sender.to_owned();
                let own = sender == client.name();
                let forged = self.hostile.has_spoken;
                require(forged || !own && client.heard.insert((sender, count)), "ephemeral messages come once", || {
                    format!("client {who} hears {count} of {}, own or again", envelope.sender)
                })
            }
            Body::Join { .. }
            | Body::Error { .. }
            | Body::Leave
            | Body::DocUnavailable { .. }
            | Body::RemoteSubscriptionChange { .. }
            | Body::RemoteHeadsChanged { .. }
            | Body::Native { .. }
            | Body::Unknown { .. } => Ok(()),
        }
    }

    pub(super) fn speak_of_edits(&mut self, who: usize) {
        for document in 0..self.documents.len() {
            if self.clients[who].documents[document].edited {
                self.speak(who, document);
            }
        }
    }

    /// Says what there is to say about a document. Once for each event, as automerge-repo does.
    fn speak(&mut self, who: usize, document: usize) {
        let id = self.documents[document].clone();
        let client = &mut self.clients[who];
        let (Some(link), true) = (client.link, client.joined) else { return };
        let only_v1 = client.only_v1;
        let open = &mut client.documents[document];
        open.edited = false;
        let Some(data) = open.content.generate(&mut open.state, only_v1) else { return };
        let body = if open.content.heads().is_empty() {
            Body::Request { document: id, data }
        } else {
            Body::Sync { document: id, data }
        };
        self.client_says(who, link, &body);
    }

    pub(super) fn client_says(&mut self, who: usize, link: u64, body: &Body<'_>) {
        let mut frame = Vec::new();
        wire::encode(&self.clients[who].name(), Some("server"), body, &mut frame);
        self.log.say(|| {
            let (Body::Sync { data, .. } | Body::Request { data, .. }) = body else {
                return format!("  client {who} says {}", body.kind());
            };
            let message = Message::decode(data.clone(), &Limits::default());
            format!("  client {who} says {}", message.map_or_else(|error| error.to_string(), |m| describe(&m)))
        });
        self.push_up(link, Bytes::from(frame));
    }
}
