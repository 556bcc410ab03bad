//! Stock clients of servers that federate.
//!
//! Owns: what a stock client does with a frame, and when it speaks. Must not: look into nodes.
//! Next: `../client.rs`, `../content.rs`.

use bytes::Bytes;
use syncline_core::limits::Limits;
use syncline_core::wire::{self, Body, PeerMetadata};

use super::World;
use super::traffic::{End, session};
use crate::oracle::{Checked, Violation};

impl World {
    pub(super) fn dial_client(&mut self, who: usize) -> Checked {
        let server = self.clients[who].server;
        if self.clients[who].link.is_some() || !self.nodes[server].up {
            return Ok(());
        }
        let link = self.open_link(End::Client(who), End::Node(server));
        self.nodes[server].connected(self.now, session(link, 1), None);
        let client = &mut self.clients[who];
        (client.link, client.joined) = (Some(link), false);
        for document in &mut client.documents {
            document.state = document.state.reconnected();
        }
        let mut frame = Vec::new();
        let body = Body::Join { metadata: PeerMetadata::default(), versions: Some(vec!["1"]) };
        wire::encode(&client.name(), None, &body, &mut frame);
        self.send(link, 0, Bytes::from(frame), false);
        self.drain(server)
    }

    pub(super) fn client_edit(&mut self, who: usize, value: u64) -> Checked {
        let document = value as usize % self.documents.len();
        let bytes = self.clients[who].documents[document].content.edit(value, &mut self.oracle);
        self.client_made(&bytes)?;
        self.log.say(|| format!("  client {who} writes in document {document}"));
        self.speak(who, document);
        Ok(())
    }

    pub(super) fn client_frame(&mut self, who: usize, frame: &Bytes) -> Checked {
        let envelope = wire::decode(frame, &Limits::default())
            .map_err(|error| Violation { checker: "own frames are readable", detail: error.to_string() })?;
        match envelope.message {
            Body::Peer { .. } => {
                self.clients[who].joined = true;
                (0..self.documents.len()).for_each(|document| self.speak(who, document));
            }
            Body::Sync { document, data } | Body::Request { document, data } => {
                let document = self.documents.iter().position(|own| *own == document);
                let Some(document) = document else { return Ok(()) };
                let open = &mut self.clients[who].documents[document];
                let received = open.content.receive(&mut open.state, data, false);
                received.map_err(|error| {
                    let detail = format!("client {who} cannot take a message: {error}");
                    Violation { checker: "stock clients take what is sent", detail }
                })?;
                self.speak(who, document);
            }
            Body::Join { .. }
            | Body::Ephemeral { .. }
            | Body::Error { .. }
            | Body::Leave
            | Body::DocUnavailable { .. }
            | Body::RemoteSubscriptionChange { .. }
            | Body::RemoteHeadsChanged { .. }
            | Body::Native { .. }
            | Body::Unknown { .. } => {}
        }
        Ok(())
    }

    /// Says what there is to say about a document. Once for each event, as automerge-repo does.
    fn speak(&mut self, who: usize, document: usize) {
        let id = self.documents[document].clone();
        let client = &mut self.clients[who];
        let (Some(link), true) = (client.link, client.joined) else { return };
        let open = &mut client.documents[document];
        let Some(data) = open.content.generate(&mut open.state, false) else { return };
        let body = if open.content.heads().is_empty() {
            Body::Request { document: id, data }
        } else {
            Body::Sync { document: id, data }
        };
        let mut frame = Vec::new();
        wire::encode(&client.name(), Some("server"), &body, &mut frame);
        self.send(link, 0, Bytes::from(frame), false);
    }
}
